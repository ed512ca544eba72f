"""The deploy form and the ONNX file of networks with PConvBlocks, with a FasterNet and without."""

import copy

import mmpretrain.registry
import pytest
import torch
from mmcv.cnn import ConvModule
from timm.layers import ConvNormAct
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from fasternet_mm import FasterNet, PConvBlock
from fasternet_mm.adapt import replace_convs
from fasternet_mm.deploy import switch_to_deploy, to_onnx
from fasternet_mm.deploy.form import DeployedPConvBlock
from fasternet_mm.ops import FusedConv2d
from tests.helpers import relative_error
from tests.helpers.networks import settled

CFG = dict(type='PConvBlock')
BN = dict(type='BN')


def torchvisions() -> nn.Module:
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5)
    replace_convs(model, where=lambda name, conv: conv.out_channels < 256)
    return model


def mms() -> nn.Module:
    backbone = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, conv_cfg=CFG)
    return mmpretrain.registry.MODELS.build(dict(type='ImageClassifier', backbone=backbone))


class Shared(nn.Module):
    """One block and one convolution for two levels, each of which has its own norm, as RTMDet's head."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(ConvModule(3, 8, 3, padding=1, norm_cfg=BN, conv_cfg=CFG) for _ in range(2))
        self.after = nn.ModuleList(ConvModule(8, 8, 3, 2, 1, norm_cfg=BN, conv_cfg=CFG) for _ in range(2))
        self.levels[1].conv, self.after[1].conv = self.levels[0].conv, self.after[0].conv
        self.block = self.again = PConvBlock(8, 8, 3, 2)

    def forward(self, x):
        return self.again(self.block(self.after[0](self.levels[0](x)) + self.after[1](self.levels[1](x))))


class Untraceable(nn.Module):
    """Looks at values; a part of it can be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), PConvBlock(8, 8, 3, 2), nn.BatchNorm2d(8))
        self.block, self.norm = PConvBlock(8, 8), nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.part(x)
        return self.norm(self.block(x)) if x.sum() < torch.inf else x


class TwoReaders(nn.Module):
    """Norms that cannot go: the block's output, or the norm itself, serves twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([PConvBlock(3, 8, n_div=2), PConvBlock(8, 8, bias=False), PConvBlock(8, 8)])
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))

    def forward(self, x):
        x = self.blocks[0](x)
        x = x + self.norms[0](x)
        return self.norms[1](self.blocks[1](x)) + self.norms[1](self.blocks[2](x))


def timms() -> nn.Module:
    """Norms that include the activation."""
    model = nn.Sequential(ConvNormAct(3, 8, 1), ConvNormAct(8, 8, 3, stride=2, act_layer=nn.LeakyReLU))
    replace_convs(model)
    return model


class Beside(nn.Module):
    """A FasterNet, and a neck of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = FasterNet(dict(embed_dims=8, depths=(1, 1, 1, 1), act_cfg=dict(type='ReLU')), out_indices=(1,))
        self.neck = nn.Sequential(PConvBlock(16, 16, 5), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, x):
        return self.neck(self.backbone(x)[0])


def norms_of(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


MODELS = {torchvisions: 0, mms: 0, timms: 0, Shared: 4, Untraceable: 1, TwoReaders: 2, Beside: 0}  # norms that stay


@pytest.mark.usefixtures('mmpretrain_scope')
@pytest.mark.parametrize('make', MODELS, ids=lambda make: make.__name__)
@pytest.mark.parametrize('shape', [(2, 3, 64, 64), (1, 3, 45, 77)])
def test_it_computes_what_the_trained_form_computes(make, shape):
    trained, images = settled(make()), torch.randn(shape)
    model = copy.deepcopy(trained)
    given = images.clone()
    assert switch_to_deploy(model) is model and switch_to_deploy(model) is model
    assert norms_of(model) == MODELS[make]
    assert not any(isinstance(module, PConvBlock) for module in model.modules())
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found, want = model(images), trained(images)
        with torch.no_grad():
            assert relative_error(found, want) < 1e-5
    torch.testing.assert_close(images, given, rtol=0, atol=0)
    again = switch_to_deploy(make().eval())
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert relative_error(again(images), model(images)) < 1e-6


@torch.no_grad()
def test_a_stride_is_taken_before_pconv_computes():
    block = settled(PConvBlock(8, 16, 3, stride=2))
    deployed, x = DeployedPConvBlock(copy.deepcopy(block)), torch.randn(1, 8, 9, 12)
    assert deployed.pconv.partial_conv3(x[:, :2]).shape[2:] == (5, 6)
    assert relative_error(deployed(x), block(x)) < 1e-5


@torch.no_grad()
def test_a_block_that_somebody_looks_into_stays_and_is_seen():
    model, seen = settled(nn.Sequential(PConvBlock(8, 8), nn.BatchNorm2d(8))), []
    model[0].register_forward_hook(lambda *args: seen.append(args))
    x = torch.randn(1, 8, 6, 6)
    want = model(x)
    switch_to_deploy(model)
    assert relative_error(model(x), want) < 1e-5 and len(seen) == 2
    assert type(model[0]) is PConvBlock and type(model[0].pwconv) is FusedConv2d and norms_of(model) == 1


@pytest.mark.parametrize(('make', 'dynamic'), [(Shared, True), (Beside, False)])
def test_the_onnx_file_computes_the_same(make, dynamic):
    pytest.importorskip('onnxscript')
    onnxruntime = pytest.importorskip('onnxruntime')
    trained = settled(make())
    deployed = switch_to_deploy(copy.deepcopy(trained))
    file = to_onnx(deployed, torch.randn(2 if dynamic else 1, 3, 64, 64), ['y'], dynamic)
    images = torch.randn((3, 3, 97, 66) if dynamic else (1, 3, 64, 64))
    (found,) = onnxruntime.InferenceSession(file).run(None, dict(images=images.numpy()))
    with torch.no_grad():
        assert relative_error(found, trained(images)) < 1e-5
