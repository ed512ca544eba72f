"""The classes of the heads, the data sets, their annotation files and the evaluators, against each other."""

from collections.abc import Iterable, Mapping, Sequence
from logging import Logger

from mmcv.cnn import VGG
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.models import RPNHead
from mmdet.models.roi_heads.mask_heads import FusedSemanticHead
from mmengine.dataset import BaseDataset
from mmpretrain.evaluation import Accuracy
from torch import nn

from ...checkpoint.rules import listed
from ...errors import DataError, UserError
from ..explaining import nodes
from ..samples import leaves
from .annotations import find_bad_box, missing_classes, named, names_by_id


def check_classes(dataset: BaseDataset, setting: str) -> None:
    """Raise UserError where the classes of a data set are not those of its annotations, or in another order.

    mmdet lets a name pass that is not in the file, and numbers classes in the file's order, whatever metainfo says.
    """
    classes, fault = classes_of(dataset, setting), None
    if hasattr(dataset, 'cat_ids') and (known := names_by_id(dataset.ann_file)):
        fault = fault_of_categories(classes, known, dataset.cat_ids, dataset.ann_file, setting)
    elif hasattr(dataset, 'folder_to_idx'):  # mmpretrain's data sets without a file
        folders = f'{dataset.img_prefix} (in alphabetical order)'
        fault = _order_fault(f'{setting}.metainfo.classes', classes, folders, list(dataset.folder_to_idx))
    if fault:
        raise DataError(fault)


def classes_of(dataset: BaseDataset, setting: str) -> Sequence[str]:
    """Return the classes of a data set; raise UserError where they are a text."""
    classes = dataset.metainfo.get('classes') or ()
    if isinstance(classes, str):
        raise DataError(f'{setting}.metainfo.classes must be a tuple of names, as ({classes!r},), but is {classes!r}')
    return classes


def fault_of_categories(
    classes: Sequence[str], known: Mapping, cat_ids: Sequence, ann_file: str, setting: str
) -> str | None:
    """Return how `classes` differ from a file's categories, or None.

    Args:
        classes (Sequence[str]): Of the data set.
        known (Mapping): The names of the file's categories by their ids.
        cat_ids (Sequence): The ids of those that the data set takes, in the order in which it numbers them.
        ann_file (str): The file.
        setting (str): The key of the data set in the config.
    """
    file = named(ann_file, setting)
    if len(cat_ids) != len(classes) and (fault := missing_classes(classes, known.values())):
        return f'{file} {fault}'
    return _order_fault(f'{setting}.metainfo.classes', classes, file, [known.get(number) for number in cat_ids])


def check_trained_classes(checkpoint: dict, dataset, logger: Logger) -> None:
    """Say where a checkpoint was trained with a class at another place; its names may be the wrong ones."""
    meta = checkpoint.get('meta')
    if isinstance(meta, dict) and isinstance(meta.get('dataset_meta'), dict):
        meta = meta['dataset_meta']
    names = (meta.get('classes') or meta.get('CLASSES')) if isinstance(meta, dict) else None  # CLASSES: mmdet 2
    classes = getattr(dataset, 'metainfo', {}).get('classes') or ()
    if isinstance(names, (list, tuple)):
        if fault := _order_fault('the checkpoint', names, 'test_dataloader.dataset.metainfo.classes', classes):
            logger.warning(fault)


def check_same_classes(train, val, logger: Logger) -> None:
    """Raise UserError where validation has a class of the training at another place: its AP would be another's.

    One line tells of a class that has another name.
    """
    ours, theirs = (list(getattr(dataset, 'metainfo', {}).get('classes') or ()) for dataset in (train, val))
    if fault := _order_fault('train_dataloader.dataset.metainfo.classes', ours, 'val_dataloader.dataset', theirs):
        raise DataError(fault)
    for number, (name, other) in enumerate(zip(ours, theirs)):
        if name != other:
            logger.warning(f'class {number} is {name!r} in train_dataloader.dataset, and {other!r} in val_dataloader')
            break


def _order_fault(source: str, classes: Sequence[str], other: str, names: Sequence[str]) -> str | None:
    """Return a sentence on the first of `classes` that is at another place among `names`, or None."""
    for number, name in enumerate(classes):
        if name in names and names.index(name) != number:
            return (
                f'{source} has {name!r} as number {number}, but {other} has it as number {names.index(name)}; what is '
                f'found would get wrong names, and AP could be wrong: give {listed(list(map(repr, names)))}'
            )
    return None


def check_heads(model: nn.Module, dataset, setting: str) -> None:
    """Raise UserError where a part of the model has another number of classes than the data set."""
    metainfo = getattr(dataset, 'metainfo', {})
    classes = metainfo.get('classes')
    if classes is None or 'stuff_classes' in metainfo:  # panoptic: heads of things, and of things and stuff
        return
    for name, module in model.named_modules():
        number = getattr(module, 'num_classes', None)
        # as in mmdet's NumClassCheckHook: these have classes of their own
        if number is None or isinstance(module, (VGG, RPNHead, FusedSemanticHead)) or 'rpn_head' in name.split('.'):
            continue
        if name != 'data_preprocessor' and number != len(classes):
            raise DataError(
                f'model.{name}.num_classes is {number}, but {setting} has {len(classes)} classes: '
                f'{", ".join(map(repr, classes[:5]))}{", ..." if len(classes) > 5 else ""}'
            )


def check_annotations(dataset, setting: str) -> None:
    """Raise UserError where a data set for detection has no object, or a box that is none; mmdet passes over both."""
    found = list(leaves(dataset, setting))
    infos = (leaf.get_data_info(index) for _, leaf in found for index in range(len(leaf)))
    if found and not any(_has_objects(info) for info in infos):
        raise DataError(
            f'{setting} has no object of its classes on any of its {len(dataset)} images, crowds apart: see '
            f'{", ".join(leaf.ann_file for _, leaf in found)}'
        )
    for path, leaf in found:
        if hasattr(leaf, 'cat_ids') and (fault := find_bad_box(leaf.ann_file)):
            raise DataError(f'{named(leaf.ann_file, path)} {fault}')


def _has_objects(info: dict) -> bool:
    if 'instances' not in info:  # not for detection
        return True
    return any(not instance.get('ignore_flag') for instance in info['instances'])


def check_evaluator(loop, name: str, settings: Mapping | list, logger: Logger) -> None:
    """Check what the metrics of a validation or a test will need.

    Raises:
        UserError: If there is no object to find, or a metric is for other images or other classes.
    """
    setting, dataset = f'{name}_dataloader.dataset', loop.dataloader.dataset
    metrics = loop.evaluator.metrics
    classes = getattr(dataset, 'metainfo', {}).get('classes') or ()
    if all(getattr(metric, 'format_only', False) for metric in metrics):
        return  # as for a test set whose annotations are not public
    check_annotations(dataset, setting)
    files = [(path, node['ann_file']) for path, node in nodes({f'{name}_evaluator': settings}) if 'ann_file' in node]
    with_files = [metric for metric in metrics if getattr(metric, '_coco_api', None) is not None]
    for (path, file), metric in zip(files, with_files):
        if isinstance(metric, CocoMetric) and not metric.format_only:
            _check_coco(metric._coco_api, dataset, classes, named(file, path), setting, logger)
            if fault := find_bad_box(file):
                raise DataError(f'{named(file, path)} {fault}')
    for metric in metrics:
        if isinstance(metric, Accuracy) and classes and max(metric.topk) > len(classes):
            raise UserError(f'{name}_evaluator.topk is {metric.topk!r}, but {setting} has {len(classes)} classes')


def _check_coco(coco: COCO, dataset, classes: Sequence[str], file: str, setting: str, logger: Logger) -> None:
    images = {leaf.get_data_info(index)['img_id'] for _, leaf in leaves(dataset, '') for index in range(len(leaf))}
    if fault := fault_of_images(images, coco.imgs, file, setting):
        raise DataError(fault)
    names = [category['name'] for category in coco.cats.values()]
    if fault := missing_classes(classes, names):
        raise DataError(f'{file} {fault}')
    if fault := _order_fault(f'{setting}.metainfo.classes', classes, file, [name for name in names if name in classes]):
        raise DataError(fault)
    if others := [name for name in names if name not in classes]:
        told = ', '.join(map(repr, others[:5])) + (', ...' if len(others) > 5 else '')
        logger.warning(f'{file} has {len(others)} categories that are not asked for, and left out: {told}')
    if len(coco.imgs) > len(images):
        logger.warning(
            f'{file} has {len(coco.imgs)} images, {setting} {len(images)} of them: the others count as missed'
        )


def fault_of_images(images: set, known: Iterable, file: str, setting: str) -> str | None:
    """Return which ids of a data set's images are not among the `known` ones of its evaluator's file, or None."""
    foreign = images - set(known)
    if not foreign:
        return None
    return (
        f'{file} does not have {len(foreign)} of the {len(images)} images of {setting} (one of them has the id '
        f'{min(foreign, key=str)!r}); both need the same annotation file'
    )
