"""The classifier of the paper's table 8, whole."""

import pytest
import torch
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fasternet_mm import FasterNet, FasterNetClsHead
from tests.helpers import build_classifier
from tests.helpers.golden import TABLES, official_state_dict

pytestmark = pytest.mark.usefixtures('mmpretrain_scope')

VARIANTS = TABLES['table8_variants']


@pytest.mark.parametrize('arch', VARIANTS)
def test_parameters_and_multiply_adds_equal_table_8(arch):
    with torch.device('meta'):
        model = build_classifier(arch).eval()
        assert sum(p.numel() for p in model.parameters()) == VARIANTS[arch]['params_exact']
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224))
    # torch counts a multiply-add as two
    assert round(counter.get_total_flops() / 2e9, 2) == VARIANTS[arch]['gflops']


@pytest.mark.parametrize('arch', VARIANTS)
def test_the_activation_is_the_variants_own(arch):
    with torch.device('meta'):
        model = build_classifier(arch)
    want = getattr(nn, VARIANTS[arch]['act'])
    assert type(model.head.act) is type(model.backbone.stages[0].blocks[0].mlp[2]) is want


def test_the_head_pools_convolves_activates_and_classifies():
    head = FasterNetClsHead(num_classes=5, in_channels=8, hidden_channels=16)
    maps = torch.randn(2, 8, 3, 4)
    pooled = maps.mean((2, 3))
    hidden = (pooled @ head.conv.weight[:, :, 0, 0].T).relu()
    assert head.conv.bias is None
    torch.testing.assert_close(head.pre_logits((None, maps)), hidden)
    torch.testing.assert_close(head((None, maps)), hidden @ head.fc.weight.T + head.fc.bias)


def test_the_head_starts_as_the_official_one():
    head = FasterNetClsHead(num_classes=1000, in_channels=320)
    head.init_weights()
    for weight in (head.conv.weight, head.fc.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02) and abs(weight).max() < 2.1
    assert not head.fc.bias.any()


def test_it_trains_and_predicts(tiny_classifier):
    model = MODELS.build(tiny_classifier)
    images = torch.randn(4, 3, 64, 64)
    samples = [DataSample().set_gt_label(i % 3) for i in range(4)]
    model(images, samples, mode='loss')['loss'].backward()
    assert all(p.grad is not None for p in model.parameters())
    predictions = model.eval()(images, samples, mode='predict')
    assert [p.pred_score.shape for p in predictions] == [torch.Size([3])] * 4


def test_layer_depth_grows_with_depth(tiny):
    backbone = FasterNet(arch=dict(embed_dims=8, depths=(1, 2, 3, 1)), out_norm=True)
    depth = {name: backbone.get_layer_depth(f'backbone.{name}', 'backbone.') for name in backbone.state_dict()}
    assert {num for _, num in depth.values()} == {7 + 2}
    assert depth['patch_embed.proj.weight'][0] == depth['patch_embed.norm.bias'][0] == 0
    assert depth['stages.0.blocks.0.mlp.0.weight'][0] == 1
    # a merging belongs to the block after it
    assert depth['stages.1.reduction.weight'][0] == depth['stages.2.blocks.0.mlp.1.bias'][0] == 2
    assert depth['stages.4.blocks.2.spatial_mixing.partial_conv3.weight'][0] == 6
    assert depth['stages.5.norm.weight'][0] == depth['stages.6.blocks.0.mlp.3.weight'][0] == 7
    # what is new in a task learns fastest
    assert depth['norm0.weight'][0] == backbone.get_layer_depth('head.fc.weight', 'backbone.')[0] == 8


def test_layer_wise_decay_through_mmpretrains_constructor(tiny_classifier):
    model = MODELS.build(tiny_classifier)
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05))
    build = LearningRateDecayOptimWrapperConstructor(wrapper, dict(layer_decay_rate=0.5))
    rates = {group['param_name']: group['lr'] for group in build(model).optimizer.param_groups}
    assert set(rates) == {name for name, _ in model.named_parameters()}
    assert rates['head.fc.weight'] == rates['head.conv.weight'] == 1.0
    assert rates['backbone.stages.6.blocks.0.mlp.0.weight'] == 0.5
    assert rates['backbone.patch_embed.proj.weight'] == 0.5**5  # four blocks between


def test_torchs_own_loading_takes_official_names():
    weights = official_state_dict('t0', 'classification', seed=0)
    model = build_classifier('t0')
    model.load_state_dict(weights, strict=True)
    assert torch.equal(model.head.fc.weight, weights['head.weight'])
    model.load_state_dict(model.state_dict(), strict=True)  # and its own, as ever
