"""What is outside the graph, read from a config: how the test pipeline resizes, the classes, and pictures to try."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config

from ...engine.samples import leaves
from ...errors import UserError

_NO_CHANGE = ('LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs')
_PICTURES = ('.jpg', '.jpeg', '.png', '.bmp')


def pipeline_of(cfg: Config) -> list[Mapping]:
    """Return the transforms that the config's test images go through.

    Raises:
        UserError: If it has none.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    while dataset and 'pipeline' not in dataset:
        dataset = dataset.get('dataset') or next(iter(dataset.get('datasets', [])), None)
    if not dataset:
        raise UserError('the config has no test_dataloader.dataset.pipeline, which says how pictures are resized')
    return dataset['pipeline']


def resizing(pipeline: list[Mapping]) -> tuple[dict | None, dict]:
    """Return what a test pipeline does with a picture's size: how it resizes, and to what it pads.

    Returns:
        tuple: ``{'scale': [w, h], 'keep_ratio': bool}`` or None; ``{'size': [w, h] or None, 'value': [b, g, r]}``.

    Raises:
        UserError: If a transform does something else.
    """
    resize, pad = None, dict(size=None, value=[0, 0, 0])
    for index, transform in enumerate(pipeline):
        settings = dict(transform)
        kind = settings.pop('type').removeprefix('mmdet.')
        if kind == 'Resize' and resize is None and set(settings) <= {'scale', 'keep_ratio'} and 'scale' in settings:
            scale = settings['scale']
            scale = (scale, scale) if isinstance(scale, int) else scale
            resize = dict(scale=list(scale), keep_ratio=settings.get('keep_ratio', False))
        elif kind == 'Pad' and set(settings) <= {'size', 'pad_val'} and 'size' in settings:
            value = settings.get('pad_val', 0)
            value = value.get('img', 0) if isinstance(value, Mapping) else value
            pad = dict(size=list(settings['size']), value=list(np.broadcast_to(value, 3).tolist()))
        elif kind not in _NO_CHANGE:
            raise UserError(
                f'test_dataloader.dataset.pipeline[{index}]={dict(transform)}: a reader of the exported file can only '
                'do Resize (scale, keep_ratio) and, after it, Pad (size, pad_val)'
            )
    return resize, pad


def classes_of(cfg: Config, count: int) -> list[str]:
    """Return the names of a detector's classes: of the config's test data, whose class may know them.

    Raises:
        UserError: If there are not `count` of them.
    """
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    known = DATASETS.get(dataset['type']).METAINFO
    classes = list((dataset.get('metainfo') or {}).get('classes') or known.get('classes') or ())
    if len(classes) != count:
        raise UserError(f'the model has {count} classes, but the test data of the config has {len(classes)}')
    return classes


def first_pictures(cfg: Config, count: int) -> list[str]:
    """Return the paths of the config's first test images.

    Raises:
        UserError: If they are not here.
    """
    try:
        found = [leaf for _, leaf in leaves(DATASETS.build(cfg.test_dataloader.dataset), '')]
    except FileNotFoundError as error:
        raise UserError(
            f'{error.filename} does not exist, so there are no pictures to check the file with; --images DIR names some'
        ) from error
    paths = [leaf.get_data_info(index)['img_path'] for leaf in found for index in range(min(count, len(leaf)))]
    paths = [path for path in paths if os.path.isfile(path)][:count]
    if not paths:
        raise UserError("none of the config's first test images is here; --images DIR names pictures to check with")
    return paths


def pictures_in(folder: Path, count: int) -> list[str]:
    """Return the paths of a folder's first pictures, by name.

    Raises:
        UserError: If there is none.
    """
    paths = sorted(str(path) for path in folder.glob('*') if path.suffix.lower() in _PICTURES)[:count]
    if not paths:
        raise UserError(f'--images {folder} has no picture ({", ".join(_PICTURES)})')
    return paths
