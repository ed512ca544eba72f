"""The samples of a data set: which image an error is about, and a first one to try."""

import copy
import logging
import math
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from PIL import Image

from ..errors import DataError, UserError
from .checks.images import decoder_of, examine, fault_of_file
from .explaining import cause, innermost

_MOST_FILES = 5000
_HANDFUL = 8


def leaves(dataset, setting: str) -> Iterator[tuple[str, BaseDataset]]:
    """Yield the data sets inside the wrappers (RepeatDataset, ConcatDataset, ...), each with its key in the config."""
    inner = getattr(dataset, 'datasets', None)
    if inner is not None:
        for index, child in enumerate(inner):
            yield from leaves(child, f'{setting}.datasets.{index}')
    elif hasattr(dataset, 'dataset'):
        yield from leaves(dataset.dataset, f'{setting}.dataset')
    elif isinstance(dataset, BaseDataset):
        yield setting, dataset


def name_images(dataset: BaseDataset) -> None:
    """Make each error of the data set's pipeline a DataError of one line that names the image, in workers, too."""
    dataset.prepare_data = MethodType(_prepare_data, dataset)


def _prepare_data(self: BaseDataset, index: int) -> Any:
    try:
        sample = type(self).prepare_data(self, index)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise DataError(_what_is_wrong(error, self, index)) from error
    size = getattr(sample.get('data_samples'), 'ori_shape', None) if isinstance(sample, dict) else None
    if size is not None:
        info = self.get_data_info(index)
        if fault := fault_of_size(tuple(size[::-1]), info) or fault_of_label(info, self):
            raise DataError(f'image {info.get("img_path")!r} {fault}')
    return sample


def _what_is_wrong(error: Exception, dataset: BaseDataset, index: int) -> str:
    info = dataset.get_data_info(index)
    path, transform = info.get('img_path'), innermost(error, BaseTransform)
    told = (f'{type(transform).__name__}: ' if transform else '') + cause(error)
    if not isinstance(path, str):
        return f'sample {index} of {dataset.ann_file!r} cannot be used: {told}'
    if fault := fault_of_file(path):
        return f'image {path!r} {fault}'
    size = _size_of(path)
    if size and (fault := fault_of_size(size, info)):
        return f'image {path!r} {fault}'
    if size is None or isinstance(transform, LoadImageFromFile):
        return f'image {path!r} is damaged, or of a format that cannot be read: {told}'
    return f'image {path!r} of {size[0]} x {size[1]} pixels or its annotations cannot be used: {told}'


def _size_of(path: str) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):  # damaged, remote, or larger than PIL likes
        return None


def fault_of_size(size: tuple[int, int], info: dict) -> str | None:
    """Compare the width and height of an image with those that its annotations were made for, where there are any."""
    told = (info.get('width'), info.get('height'))
    if None in told or size == told:
        return None
    width, height = size
    return f'has {width} x {height} pixels, but is annotated as one of {told[0]} x {told[1]}: boxes would be elsewhere'


def fault_of_label(info: dict, dataset: BaseDataset) -> str | None:
    """Compare the label of an image, or its labels, with the number of classes; a GPU would only say "assert"."""
    classes = dataset.metainfo.get('classes')
    for label in np.ravel(info.get('gt_label', ())) if classes else ():
        if not 0 <= label < len(classes):
            return f'has the label {label}, but the {len(classes)} classes are 0 to {len(classes) - 1}'
    return None


def check_files(dataset: BaseDataset, setting: str) -> None:
    """Look at up to 5000 images, of more evenly many, and decode a handful of them.

    Raises:
        DataError: If one is missing or empty, has no right label, or cannot be decoded.
    """
    for index in _evenly(len(dataset), _MOST_FILES):
        info = dataset.get_data_info(index)
        path = info.get('img_path')
        if index == 0 and not (path and os.path.isfile(path)):  # remote, or in an archive: the first sample was fine
            return
        if fault := fault_of_file(path) or fault_of_label(info, dataset):
            raise DataError(f'{setting}: image {path!r} {fault}')
    for index in _evenly(len(dataset), _HANDFUL):
        path = dataset.get_data_info(index)['img_path']
        file = examine(path, decoder_of(dataset.pipeline))
        if file.fault == 'damaged':
            text = f'{setting}: image {path!r} {file.told}; tools/check_data.py finds all of them'
            print_log(text, logger='current', level=logging.WARNING)
        elif file.fault:
            raise DataError(f'{setting}: image {path!r} {file.told}')


def _evenly(length: int, most: int) -> range:
    return range(0, length, math.ceil(length / most))


def first_sample(dataset) -> Any:
    """Return the first sample, without a trace: neither random numbers nor what transforms keep is used up."""
    kept = {}  # shared, not copied: it may be large, and nobody writes to it
    for _, leaf in leaves(dataset, ''):
        for name in ('data_bytes', 'data_address', 'data_list'):
            value = getattr(leaf, name, None)
            kept[id(value)] = value
    with _random_state_kept():
        return copy.deepcopy(dataset, kept)[0]


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Put the random numbers of Python, NumPy and torch on the CPU back to where they were."""
    ours, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
