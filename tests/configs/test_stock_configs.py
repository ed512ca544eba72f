"""A stock mmdet config trains a step and predicts after exactly two edits: custom_imports, and the backbone with the
neck's in_channels."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

CONFIGS = [
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
]
EDITS = """
_base_ = 'mmdet::{config}'
custom_imports = dict(imports=['fasternet_mm'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type='FasterNet', arch='t0'{outputs}),
    neck=dict(in_channels={channels}{start}),
)
"""


def two_images(size: int = 96) -> dict:
    from mmdet.structures.mask import BitmapMasks

    samples = []
    for _ in range(2):
        boxes = torch.tensor([[8.0, 8, 60, 60], [30, 40, 90, 90]])
        masks = torch.zeros(2, size, size, dtype=torch.uint8)
        masks[0, 8:60, 8:60] = masks[1, 40:90, 30:90] = 1
        sample = DetDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size),
                                             batch_input_shape=(size, size), scale_factor=(1.0, 1.0)))  # fmt: skip
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 5]), masks=BitmapMasks(masks.numpy(), size, size)
        )
        samples.append(sample)
    return dict(inputs=[torch.randint(0, 255, (3, size, size), dtype=torch.uint8)] * 2, data_samples=samples)


def train_and_predict(path):
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    if 'rpn' in cfg.model.test_cfg:
        # with 1000 proposals the heads take 12 seconds, and nothing here depends on how many there are
        cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.test_cfg.rpn.max_per_img = 64
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        model.backbone.init_weights()
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        before = model.backbone.patch_embed.proj.weight.clone()
        data = model.data_preprocessor(two_images(), training=True)
        loss, losses = model.train().parse_losses(model(**data, mode='loss'))
        loss.backward()
        unused = [name for name, p in model.named_parameters() if p.grad is None]
        wrapper.step()
        assert all(value.isfinite().all() for value in losses.values()) and losses['loss'] > 0
        assert not torch.equal(before, model.backbone.patch_embed.proj.weight)
        predictions = model.eval().test_step(two_images())
        assert len(predictions) == 2 and predictions[0].pred_instances.bboxes.shape[1] == 4
        return unused


@pytest.mark.parametrize('config', CONFIGS)
def test_two_edits_are_enough(config, tmp_path):
    path = tmp_path / 'edited.py'
    path.write_text(EDITS.format(config=config, outputs='', channels=[40, 80, 160, 320], start=''))
    assert train_and_predict(path) == []


@pytest.mark.parametrize('out_norm', [False, True])
def test_three_outputs_for_a_neck_that_leaves_out_the_first(tmp_path, out_norm):
    path = tmp_path / 'edited.py'
    path.write_text(
        EDITS.format(
            config=CONFIGS[0],
            outputs=f', out_indices=(1, 2, 3), out_norm={out_norm}',
            channels=[80, 160, 320],
            start=', start_level=0',
        )
    )
    assert train_and_predict(path) == []
