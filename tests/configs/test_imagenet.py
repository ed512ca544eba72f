"""What the ImageNet configs BUILD is the paper's table 6."""

import copy
import inspect
import math
from functools import cache

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample

from tests.helpers import CLASSES, build_classifier, classifier_config
from tests.helpers.golden import TABLES, VARIANTS

pytestmark = pytest.mark.usefixtures('mmpretrain_scope')

COMMON = TABLES['table6_imagenet_recipe']['common']
RECIPE = TABLES['table6_imagenet_recipe']['per_variant']

every_variant = pytest.mark.parametrize('arch', VARIANTS)


@cache
def config_of(arch: str) -> Config:
    return classifier_config(arch)


@cache
def build(arch: str) -> torch.nn.Module:
    with torch.device('meta'):
        return build_classifier(arch)


def build_preprocessor(arch: str) -> torch.nn.Module:
    """What a variant's model does with images, without the rest of it."""
    cfg = config_of(arch)
    cfg = dict(cfg.model, backbone=dict(type='FasterNet', arch='t0'), data_preprocessor=cfg.data_preprocessor)
    return MODELS.build(cfg).data_preprocessor


@every_variant
def test_network(arch):
    model = build(arch)
    drop_path = getattr(model.backbone.stages[6].blocks[-1].drop_path, 'drop_prob', 0.0)
    assert drop_path == pytest.approx(RECIPE[arch]['drop_path'])
    # no layer scale, and all of it trains
    assert model.backbone.stages[0].blocks[0].layer_scale is None
    assert all(p.requires_grad for p in model.parameters())


@every_variant
def test_batch_of_eight_gpus(arch):
    cfg = config_of(arch)
    assert cfg.train_dataloader.batch_size * 8 == RECIPE[arch]['batch'] == cfg.auto_scale_lr.base_batch_size
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'  # no repeated augmentation


@every_variant
def test_optimizer(arch):
    cfg = config_of(arch)
    wrapper_cfg = copy.deepcopy(cfg.optim_wrapper)
    # mixed precision cannot be built without a GPU; by its defaults it is fp16 with a dynamic loss scale
    assert wrapper_cfg.type == 'AmpOptimWrapper' and set(wrapper_cfg) <= {
        'type',
        'optimizer',
        'paramwise_cfg',
        'clip_grad',
    }
    defaults = inspect.signature(AmpOptimWrapper).parameters
    assert (defaults['loss_scale'].default, defaults['dtype'].default) == ('dynamic', None)
    assert torch.get_autocast_gpu_dtype() is torch.float16
    wrapper_cfg.type = 'OptimWrapper'
    model = build(arch)
    wrapper = build_optim_wrapper(model, wrapper_cfg)
    assert type(wrapper) is OptimWrapper and type(wrapper.optimizer) is torch.optim.AdamW
    # the official code decays every parameter, norms and biases too
    (group,) = wrapper.optimizer.param_groups
    assert {id(p) for p in group['params']} == {id(p) for p in model.parameters()}
    assert group['weight_decay'] == RECIPE[arch]['wd']
    assert group['lr'] == RECIPE[arch]['lr']
    assert list(group['betas']) == COMMON['betas']
    clip = RECIPE[arch]['clip']
    assert wrapper.clip_grad_kwargs == (dict(max_norm=clip) if clip else None)


@every_variant
def test_learning_rate_of_every_epoch(arch):
    cfg, lr = config_of(arch), RECIPE[arch]['lr']
    assert cfg.train_cfg.max_epochs == COMMON['epochs'] == 300
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler]
    assert all(s.by_epoch for s in schedulers)
    for epoch in range(300):
        warming = 1e-6 + epoch / 19 * (lr - 1e-6)
        cosine = 1e-5 + (lr - 1e-5) * (1 + math.cos(math.pi * (epoch - 20) / 280)) / 2
        want = warming if epoch < 20 else cosine
        assert optimizer.param_groups[0]['lr'] == pytest.approx(want, rel=1e-9), epoch
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


@every_variant
def test_label_smoothing_and_soft_targets(arch):
    loss = MODELS.build(config_of(arch).model.head.loss)
    logits, target = torch.randn(4, 1000), torch.rand(4, 1000).softmax(1)
    smoothed = target * 0.9 + 0.1 / 1000
    want = -(smoothed * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss(logits, target, avg_factor=4), want)
    one_hot = torch.nn.functional.cross_entropy(logits, torch.arange(4), label_smoothing=COMMON['label_smoothing'])
    torch.testing.assert_close(loss(logits, torch.arange(4), avg_factor=4), one_hot)


@every_variant
def test_every_batch_is_mixed_by_mixup_or_cutmix_evenly(arch):
    augment = copy.copy(build(arch).data_preprocessor.batch_augments)
    mixup, cutmix = augment.augments
    assert (type(mixup).__name__, mixup.alpha) == ('Mixup', RECIPE[arch]['mixup'])
    assert (type(cutmix).__name__, cutmix.alpha) == ('CutMix', COMMON['cutmix_alpha'])
    np.random.seed(0)
    calls = []
    augment.augments = [lambda *_: calls.append('mixup'), lambda *_: calls.append('cutmix')]
    for _ in range(1000):
        augment(None, None)
    assert calls.count('mixup') == pytest.approx(1000 * COMMON['mix_switch_prob'], abs=60) and len(calls) == 1000


def transforms_of(pipeline) -> dict:
    return {type(t).__name__: t for t in Compose([TRANSFORMS.build(copy.deepcopy(t)) for t in pipeline]).transforms}


@every_variant
def test_augmentation_before_and_after_epoch_280(arch):
    cfg = config_of(arch)
    (switch,) = [hook for hook in cfg.custom_hooks if hook.type == 'SwitchRecipeHook']
    (late,) = switch.schedule
    assert late.action_epoch == 281  # counted from 1
    for pipeline, size in ((cfg.train_dataloader.dataset.pipeline, 192), (late.train_pipeline, 224)):
        transforms = transforms_of(pipeline)
        level = RECIPE[arch]['randaug_m']
        names = ['LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'RandAugment', 'PackInputs']
        if level is None:
            names.remove('RandAugment')
        assert list(transforms) == names  # no color jitter, no erasing
        crop = transforms['RandomResizedCrop']
        assert crop.scale == (size, size) and crop.interpolation == COMMON['interpolation']
        assert list(crop.crop_ratio_range) == COMMON['random_resized_crop']
        assert crop.aspect_ratio_range == (3 / 4, 4 / 3)
        assert transforms['RandomFlip'].prob == COMMON['hflip']
        if level is not None:  # rand-m{M}-mstd0.5-inc1
            augment = transforms['RandAugment']
            assert (augment.magnitude_level, augment.magnitude_std) == (level, 0.5)
            assert (augment.num_policies, augment.total_level) == (2, 10)
            policies = {policy['type']: policy for policy in augment.policies}
            assert len(augment.policies) == 15
            # "inc1": a higher magnitude is a stronger change, whatever the direction
            assert policies['Posterize']['magnitude_range'] == (4, 0)
            assert policies['Solarize']['magnitude_range'] == (256, 0)
            for name in ('Rotate', 'Shear', 'Translate'):
                moved = [policy for policy in augment.policies if policy['type'].startswith(name)]
                assert moved and all(policy['interpolation'] == 'bicubic' for policy in moved)
                assert all(policy['pad_val'] == [104, 116, 124] for policy in moved)


@every_variant
def test_test_crop(arch):
    cfg = config_of(arch)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        transforms = transforms_of(loader.dataset.pipeline)
        assert list(transforms) == ['LoadImageFromFile', 'ResizeEdge', 'CenterCrop', 'PackInputs']
        results = dict(img=np.zeros((480, 640, 3), np.uint8), img_shape=(480, 640))
        resized = transforms['ResizeEdge'](results)['img_shape']
        assert min(resized) == math.floor(COMMON['test_size'] / COMMON['test_crop_ratio']) == 248
        assert transforms['ResizeEdge'].interpolation == 'bicubic'
        assert transforms['CenterCrop'](results)['img'].shape == (224, 224, 3)
    preprocessor = build_preprocessor(arch)
    red = preprocessor(dict(inputs=[torch.tensor([0, 0, 255], dtype=torch.uint8).view(3, 1, 1)]))['inputs']
    want = (torch.tensor([1.0, 0, 0]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(red.flatten(), want, atol=1e-3, rtol=1e-3)  # BGR in, RGB out


@pytest.mark.parametrize('num_workers', [0, 1])
def test_sizes_seen_at_epochs_280_and_281(tmp_path, image_folder, num_workers):
    """A run of T0's config, shrunk in all but its sizes, that is told it stands before epoch 280."""
    cfg = classifier_config('t0')
    cfg.work_dir = str(tmp_path)
    cfg.model.backbone.arch = dict(embed_dims=8, depths=(1, 1, 1, 1))
    cfg.model.head.update(in_channels=64, hidden_channels=16)
    cfg.train_dataloader.update(batch_size=2, num_workers=num_workers, persistent_workers=num_workers > 0)
    cfg.train_dataloader.dataset.update(data_root=str(image_folder), split='train', metainfo=dict(classes=CLASSES))
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.optim_wrapper = dict(optimizer=cfg.optim_wrapper.optimizer)
    cfg.default_hooks.checkpoint = None
    cfg.train_cfg.max_epochs = 281
    seen = {}
    runner = Runner.from_cfg(cfg)
    loop = runner.train_loop  # builds it
    loop._epoch = 279
    run_iter = loop.run_iter

    def spy(index, batch):
        seen.setdefault(runner.epoch + 1, set()).add(tuple(batch['inputs'][0].shape[1:]))
        assert isinstance(batch['data_samples'][0], DataSample)
        run_iter(index, batch)

    loop.run_iter = spy
    runner.train()
    assert seen == {280: {(192, 192)}, 281: {(224, 224)}}


def test_runs_resume_exactly_and_average_their_statistics():
    cfg = config_of('s')
    assert {'ExactResumeHook', 'SyncBuffersHook'} < {hook.type for hook in cfg.custom_hooks}
    assert cfg.default_hooks.checkpoint.type == 'AtomicCheckpointHook'
    # and no averaging of weights over iterations
    assert COMMON['ema'] is False and not any(hook.type == 'EMAHook' for hook in cfg.custom_hooks)
