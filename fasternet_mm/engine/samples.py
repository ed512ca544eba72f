"""The samples of a data set: which image an error is about, and a first one to try."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from ..errors import DataError, UserError
from .explaining import cause, innermost


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
    except UserError:
        raise
    except Exception as error:
        image = _image(self, index)
        transform = innermost(error, BaseTransform)
        step = f' in {type(transform).__name__}' if transform else ''
        raise DataError(f'image {image!r} cannot be used: {cause(error)}{step}') from error
    _check_size(sample, self, index)
    return sample


def _image(dataset: BaseDataset, index: int) -> str:
    info = dataset.get_data_info(index)
    return info.get('img_path', f'number {index}')


def _check_size(sample, dataset: BaseDataset, index: int) -> None:
    """Compare the size of the image with the one that the annotations were made for, where both are known."""
    size = getattr(sample.get('data_samples'), 'ori_shape', None) if isinstance(sample, dict) else None
    if size is None:
        return
    info = dataset.get_data_info(index)
    told = (info.get('height'), info.get('width'))
    if None not in told and tuple(size) != told:
        raise DataError(
            f'image {info.get("img_path")!r} has {size[1]} x {size[0]} pixels, but {dataset.ann_file} says '
            f'{told[1]} x {told[0]}, so its boxes and masks would be elsewhere'
        )


def first_sample(dataset) -> Any:
    """Return the first sample, without a trace: neither random numbers nor what transforms keep is used up."""
    kept = {}  # shared, not copied: it may be large, and nobody writes to it
    for _, leaf in leaves(dataset, ''):
        for name in ('data_bytes', 'data_address', 'data_list'):
            value = getattr(leaf, name, None)
            kept[id(value)] = value
    with random_state_kept():
        return copy.deepcopy(dataset, kept)[0]


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put the random numbers of Python, NumPy and torch on the CPU back to where they were."""
    ours, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
