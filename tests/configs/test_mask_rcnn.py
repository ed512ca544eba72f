"""What the shipped configs BUILD is the paper's table 7."""

from functools import cache

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from torch import nn

from fasternet_mm.checkpoint import official_url
from tests.helpers import REPO
from tests.helpers.golden import TABLES

RECIPE = TABLES['table7_coco_recipe']
NETWORKS = TABLES['table8_variants']
VARIANTS = ['s', 'm', 'l', 't0', 't1', 't2']
PARAMETERS = dict(s=48.99, m=71.23, l=110.87)  # millions, Mask R-CNN with output norms


@cache
def config_of(arch: str) -> Config:
    return Config.fromfile(REPO / 'configs' / f'mask_rcnn_fasternet_{arch}.py')


@cache
def build(arch: str) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        return MODELS.build(config_of(arch).model)


@pytest.mark.parametrize('arch', PARAMETERS)
def test_parameter_counts(arch):
    count = sum(p.numel() for p in build(arch).parameters())
    assert round(count / 1e6, 2) == PARAMETERS[arch]


@pytest.mark.parametrize('arch', VARIANTS)
def test_backbone(arch):
    model = build(arch)
    backbone = model.backbone
    width = NETWORKS[arch]['width']
    assert backbone.patch_embed.proj.out_channels == width
    assert [len(stage.blocks) for stage in backbone.stages[::2]] == NETWORKS[arch]['depths']
    assert [conv.conv.in_channels for conv in model.neck.lateral_convs] == [width * 2**i for i in range(4)]
    # from the official code: nothing frozen, BN trains, a norm on each output
    model.train()
    assert all(p.requires_grad for p in backbone.parameters())
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.training for norm in norms)
    assert [f'norm{i}' for i in (0, 2, 4, 6) if hasattr(backbone, f'norm{i}')] == ['norm0', 'norm2', 'norm4', 'norm6']
    # drop path of the last block is the recipe's; ours without for the variants that the paper does not train
    want = RECIPE['per_variant'].get(arch, dict(drop_path=0.0))['drop_path']
    assert getattr(backbone.stages[6].blocks[-1].drop_path, 'drop_prob', 0.0) == pytest.approx(want)


@pytest.mark.parametrize('arch', VARIANTS)
def test_pretrained_weights_are_the_official_files(arch):
    init_cfg = config_of(arch).model.backbone.init_cfg
    name = TABLES['official_weights']['classification'][arch]
    assert init_cfg.type == 'Pretrained'
    assert official_url(init_cfg.checkpoint) == f'https://github.com/JierunChen/FasterNet/releases/download/v1.0/{name}'


@pytest.mark.parametrize('arch', VARIANTS)
def test_optimizer_decays_every_parameter_alike(arch):
    model = build('t0')
    wrapper = build_optim_wrapper(model, config_of(arch).optim_wrapper)
    assert type(wrapper) is OptimWrapper and not wrapper.clip_grad_kwargs
    assert type(wrapper.optimizer) is torch.optim.AdamW
    (group,) = wrapper.optimizer.param_groups
    assert len(group['params']) == len(list(model.parameters()))
    assert group['lr'] == RECIPE['per_variant'].get(arch, dict(lr=2e-4))['lr']
    assert group['weight_decay'] == RECIPE['common']['weight_decay']


@pytest.mark.parametrize('arch', VARIANTS)
def test_learning_rate_over_a_run(arch):
    cfg = config_of(arch)
    assert cfg.train_cfg.max_epochs == 12
    base = cfg.optim_wrapper.optimizer.lr
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=base)
    with DefaultScope.overwrite_default_scope('mmdet'):
        schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler]
    seen, iterations = {}, 600
    for epoch in range(12):
        for iteration in range(iterations):
            seen[epoch * iterations + iteration] = optimizer.param_groups[0]['lr']
            optimizer.step()
            [s.step() for s in schedulers if not s.by_epoch]
        [s.step() for s in schedulers if s.by_epoch]
    assert seen[0] == pytest.approx(0.001 * base)
    assert seen[250] == pytest.approx(base * (0.001 + 0.999 * 250 / 499), rel=1e-3)
    assert seen[500] == pytest.approx(base)
    by_epoch = [seen[epoch * iterations + iterations - 1] for epoch in range(12)]
    assert by_epoch == pytest.approx([base] * 8 + [base / 10] * 3 + [base / 100])


@pytest.mark.parametrize('arch', VARIANTS)
def test_data_and_batch(arch):
    cfg = config_of(arch)
    assert cfg.train_dataloader.batch_size * 8 == 16 == cfg.auto_scale_lr.base_batch_size
    with DefaultScope.overwrite_default_scope('mmdet'):
        pipeline = [TRANSFORMS.build(t) for t in cfg.train_dataloader.dataset.pipeline]
    resize = next(t for t in pipeline if type(t).__name__ == 'Resize')
    for (height, width), want in {(480, 640): (800, 1067), (375, 1000): (500, 1333)}.items():
        out = resize(dict(img=np.zeros((height, width, 3), np.uint8), img_shape=(height, width)))
        assert out['img_shape'] == want
    flip = next(t for t in pipeline if type(t).__name__ == 'RandomFlip')
    assert flip.prob == RECIPE['common']['flip']


def test_output_statistics_are_averaged_over_processes_and_runs_resume_exactly():
    cfg = config_of('s')
    assert {hook.type for hook in cfg.custom_hooks} == {'ExactResumeHook', 'FiniteLossHook', 'SyncBuffersHook'}
    assert cfg.default_hooks.checkpoint.type == 'AtomicCheckpointHook'
