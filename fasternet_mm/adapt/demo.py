"""Made-up batches for every kind of model: noise with random boxes, masks, proposals, texts and identities."""

from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from ..engine.explaining import nodes
from .maps import WORDS
from .segmentors import segmentation_batch


def demo_batch(cfg: Config, side: int, training: bool) -> dict[str, Any]:
    """Return what a data loader would give the model of `cfg`, of mmdet, mmpretrain or mmseg.

    Args:
        cfg (Config): Its model says what is asked for: images, clips, pictures of people, or branches of images.
        side (int): Height and width in pixels; pictures of people are 256 x 128.
        training (bool): Whether it is to be trained. Semi-supervised detectors and some trackers then take others.
    """
    model, processor = cfg.model, cfg.model.get('data_preprocessor') or {}
    if cfg.default_scope == 'mmpretrain':
        return _pictures(side)
    if cfg.default_scope == 'mmseg':
        return segmentation_batch(side)
    if 'head' in model:
        return _people()
    if training and 'semi_train_cfg' in model:
        return _branches(cfg, side)
    if processor.get('type') == 'TrackDataPreprocessor' and not (training and processor.get('use_det_processor')):
        return _clip(side)
    return _images(cfg, side)


def _pictures(side: int) -> dict[str, Any]:
    from mmpretrain.structures import DataSample

    samples = [DataSample().set_gt_label(label) for label in (0, 1)]
    return dict(inputs=torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8), data_samples=samples)


def _people() -> dict[str, Any]:
    """Return two pictures of each of two people, for re-identification."""
    from mmdet.structures import ReIDDataSample

    samples = [ReIDDataSample().set_gt_label(label) for label in (0, 0, 1, 1)]
    return dict(inputs=torch.randint(0, 256, (4, 3, 256, 128), dtype=torch.uint8), data_samples=samples)


def _images(cfg: Config, side: int) -> dict[str, Any]:
    from mmdet.testing import demo_mm_inputs, demo_mm_proposals

    shape = (3, side, side)
    steps = [node for _, node in nodes(cfg.get('train_dataloader', {})) if isinstance(node, dict)]
    with_mask = any(step.get('with_mask') or step.get('type') == 'LoadPanopticAnnotations' for step in steps)
    rescales = [step['scale_factor'] for step in steps if step.get('type') == 'SegRescale']
    with_text = 'language_model' in cfg.model
    batch = demo_mm_inputs(
        2, shape, num_items=[3, 2], num_classes=2, with_mask=with_mask, with_semantic=True,
        sem_seg_output_strides=round(1 / rescales[0]) if rescales else 1,
        texts=['. '.join(WORDS)] * 2 if with_text else None, custom_entities=True,
    )  # fmt: skip
    detector = cfg.model.get('detector', cfg.model)
    for sample, proposals in zip(batch['data_samples'], demo_mm_proposals([shape] * 2, 50)):
        if 'roi_head' in detector and 'rpn_head' not in detector:
            sample.proposals = proposals
        sample.gt_instances.labels.zero_()  # a class that every head has
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0), pad_shape=shape[1:], batch_input_shape=shape[1:]))
    return batch


def _branches(cfg: Config, side: int) -> dict[str, Any]:
    """Return two images with annotations, and two without as teacher and student see them, for semi-supervision."""
    branches = {name: _images(cfg, side) for name in ('sup', 'unsup_teacher', 'unsup_student')}
    for branch in branches.values():
        for sample in branch['data_samples']:
            sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
    return {key: {name: branch[key] for name, branch in branches.items()} for key in ('inputs', 'data_samples')}


def _clip(side: int) -> dict[str, Any]:
    """Return two frames, the first of which is the key frame, with the same three instances."""
    from mmdet.testing import demo_track_inputs

    clip = demo_track_inputs(1, 2, key_frames_inds=[0], image_shapes=(3, side, side), num_items=[3], with_mask=True)
    for frame in clip['data_samples'][0]:
        frame.gt_instances.instances_ids = torch.arange(3)
        frame.set_metainfo(dict(scale_factor=(1.0, 1.0)))
    return clip
