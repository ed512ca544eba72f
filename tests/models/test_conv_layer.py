"""PConvBlock by conv_cfg: which convolutions of an mm model become blocks, and the line that counts them."""

import mmengine.registry
import mmpretrain.registry
import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from mmdet.models.necks import FPN
from torch import nn

from fasternet_mm import PartialConv2d, PConvBlock

CFG = dict(type='PConvBlock')


@pytest.mark.parametrize(
    ('arguments', 'options'),
    [
        ((8, 8, 1), dict(padding=0)),
        ((8, 8, 3), dict(padding=1, groups=8)),
        ((8, 8, 3), dict(padding=2, dilation=2)),
        ((8, 8, 3), dict(padding=0)),  # as where a layer before it pads
        ((8, 8, 3), dict(padding=1, padding_mode='circular')),
        ((8, 8, 4), dict(padding=2)),
        ((8, 8, (1, 7)), dict(padding=(0, 3))),
        ((3, 8, 7), dict(padding=3, stride=2)),  # of three channels there is no quarter
    ],
)
def test_what_no_block_can_stand_for_stays_as_it_is(arguments, options):
    layer, stock = build_conv_layer(CFG, *arguments, **options), nn.Conv2d(*arguments, **options)
    assert type(layer) is nn.Conv2d and repr(layer) == repr(stock)


def test_k_by_k_convolutions_become_blocks():
    layer = build_conv_layer(dict(CFG, n_div=2), 8, 16, (5, 5), stride=2, padding=2, bias=False)
    assert type(layer) is PConvBlock and layer.pconv.conv_channels == 4 and layer.pwconv.bias is None
    assert layer.kernel_size == (5, 5) and layer(torch.zeros(1, 8, 9, 9)).shape == (1, 16, 5, 5)


def test_the_norm_sees_the_pointwise_convolutions_output():
    module = ConvModule(8, 16, 3, padding=1, conv_cfg=CFG, norm_cfg=dict(type='BN'))
    assert [type(child) for child in module.conv.children()] == [PartialConv2d, nn.Conv2d]
    assert module.bn.num_features == 16 and module.conv.pwconv.bias is None
    module(torch.randn(2, 8, 6, 6)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_init_cfg_reaches_both_convolutions():
    neck = FPN([8, 16], 8, 2, conv_cfg=CFG, init_cfg=dict(type='Constant', layer='Conv2d', val=0.5, bias=0.25))
    neck.init_weights()
    block = neck.fpn_convs[0].conv
    assert (block.pconv.partial_conv3.weight == 0.5).all() and (block.pwconv.weight == 0.5).all()
    assert (block.pwconv.bias == 0.25).all()


@pytest.mark.usefixtures('mmpretrain_scope')
@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain'])
def test_one_line_of_the_log_counts_a_whole_model(log, scope):
    registry = dict(mmengine=mmengine.registry, mmpretrain=mmpretrain.registry)[scope].MODELS
    backbone = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, conv_cfg=CFG)
    head = dict(type='LinearClsHead', num_classes=3, in_channels=64)
    model = registry.build(dict(type='ImageClassifier', backbone=backbone, head=head))
    assert sum(isinstance(module, PConvBlock) for module in model.modules()) == 16
    assert [line for line in log if 'PConvBlock' in line] == [
        "conv_cfg type 'PConvBlock': 16 convolutions are PConvBlocks, 4 stay nn.Conv2d"
    ]
    assert model.backbone(torch.randn(1, 3, 64, 64))[0].shape == (1, 64, 2, 2)


@pytest.mark.usefixtures('mmpretrain_scope')
def test_models_without_it_say_nothing(log, tiny):
    mmengine.registry.MODELS.build(dict(type='FasterNet', **tiny))
    assert [line for line in log if 'PConvBlock' in line] == []
