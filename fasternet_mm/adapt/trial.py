"""Try an adapted config: build the model, train one step and predict, on random images with made-up annotations."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from ..engine.explaining import cause, nodes
from ..errors import UserError
from .maps import build_whole
from .segmentors import of_side, segmentation_batch, side_of
from .swap import SCOPES


class Trial(NamedTuple):
    """What a trial gave: the losses of one training step by name, and the predictions in words."""

    losses: dict[str, float]
    predictions: str


def try_out(cfg: Config, side: int | None = None) -> Trial:
    """Build the model of `cfg` with random weights, train a step with its own optimizer, and predict.

    Args:
        cfg (Config): Of mmdet, mmpretrain or mmseg; not changed. No weights are loaded or downloaded.
        side (int, optional): Height and width of the two images. Defaults to 128, to 256 where queries are chosen among
            the pixels, and to what an anchor generator is made for.

    Raises:
        UserError: If the model takes other inputs than one batch of images, or the trial fails.
    """
    scope = cfg.get('default_scope')
    place = f'model, {cfg.model.type},'
    if scope not in SCOPES or 'detector' in cfg.model or (scope == 'mmdet' and 'head' in cfg.model):
        raise UserError(f'{place} takes other inputs than a batch of images: it cannot be tried out')
    side = side or _side(cfg.model)
    MessageHub.get_current_instance().update_info_dict(dict(iter=0, epoch=0))  # some heads and preprocessors ask
    with DefaultScope.overwrite_default_scope(scope), _quiet():
        model = build_whole(of_side(_without_weights(cfg), side), scope)
        try:
            model.init_weights()
            wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
            model.train()
            losses = model.train_step(_batch(cfg, scope, side), wrapper)
        except Exception as error:
            raise UserError(f'{place} cannot train a step: {cause(error)}') from error
        losses = {name: value.item() for name, value in losses.items()}
        if not all(torch.tensor(list(losses.values())).isfinite()):
            raise UserError(f'{place} has losses that are not finite: {losses}')
        return Trial(losses, _predict(model, _batch(cfg, scope, side), scope, place))


def _side(model: ConfigDict) -> int:
    made_for = [node.get('input_size') for _, node in nodes(model) if isinstance(node, dict)]
    made_for.append(side_of(model))
    return max([side for side in made_for if isinstance(side, int)], default=256 if model.get('num_queries') else 128)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep a line for each parameter out of the log."""
    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


@torch.no_grad()
def _predict(model: nn.Module, batch: dict, scope: str, place: str) -> str:
    try:
        model.eval()
        samples = model.test_step(batch)
    except Exception as error:
        raise UserError(f'{place} cannot predict: {cause(error)}') from error
    return '; '.join(map(_told, samples))


def _told(sample) -> str:
    if 'pred_score' in sample:
        return f'class {sample.pred_score.argmax().item()} of {len(sample.pred_score)}'
    found = []
    if 'pred_instances' in sample:
        found.append(f'{len(sample.pred_instances)} detections')
    if 'pred_panoptic_seg' in sample:
        found.append('a panoptic map')
    if 'pred_sem_seg' in sample:
        found.append('a semantic map')
    return ' and '.join(found) or 'nothing'


def _without_weights(cfg: Config) -> Config:
    cfg = copy.deepcopy(cfg)
    for _, node in [('', cfg.model), *nodes(cfg.model)]:
        if (
            isinstance(node, dict)
            and isinstance(node.get('init_cfg'), dict)
            and node['init_cfg'].get('type') == 'Pretrained'
        ):
            node['init_cfg'] = None
    return cfg


def _batch(cfg: Config, scope: str, side: int) -> dict[str, Any]:
    if scope == 'mmpretrain':
        from mmpretrain.structures import DataSample

        samples = [DataSample().set_gt_label(label) for label in (0, 1)]
        return dict(inputs=torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8), data_samples=samples)
    if scope == 'mmseg':
        return segmentation_batch(side)
    from mmdet.testing import demo_mm_inputs, demo_mm_proposals

    shape = (3, side, side)
    rescales = [node['scale_factor'] for _, node in nodes(cfg.get('train_dataloader', {}))
                if isinstance(node, dict) and node.get('type') == 'SegRescale']  # fmt: skip
    batch = demo_mm_inputs(
        2, shape, num_items=[3, 2], num_classes=2, with_mask=True, with_semantic=True,
        sem_seg_output_strides=round(1 / rescales[0]) if rescales else 1,
    )  # fmt: skip
    for sample, proposals in zip(batch['data_samples'], demo_mm_proposals([shape] * 2, 50)):
        sample.proposals = proposals
        sample.gt_instances.labels.zero_()  # a class that every head has
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0), pad_shape=shape[1:], batch_input_shape=shape[1:]))
    return batch
