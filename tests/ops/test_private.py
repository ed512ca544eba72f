"""A private operator of torch that is absent, raises or is wrong costs speed and one line, and never a result."""

import copy
import types

import pytest
import torch
from torch import nn

from fasternet_mm import FasterNet
from fasternet_mm.deploy import switch_to_deploy
from fasternet_mm.ops import FusedConv2d, fused_conv, private
from tests.helpers import relative_error
from tests.helpers.networks import settled

ONEDNN = {
    'conv2d': '_convolution_pointwise',
    'conv2d_add': '_convolution_pointwise_',
}


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What is logged, with nothing tried yet."""
    lines = []
    monkeypatch.setattr(private, '_verdicts', {})
    monkeypatch.setattr(private, 'print_log', lambda message, *_: lines.append(message))
    return lines


def absent(*args):
    raise AttributeError('no such operator')


def broken(*args):
    raise RuntimeError('expected a tensor of another kind')


def wrong_by_a_half(operator):
    def wrong(*args):
        out = operator(*args)
        return out.to_dense().mul(1.5).to_mkldnn() if out.is_mkldnn else out.mul_(1.5)

    return wrong


def spoil(monkeypatch, name: str, how) -> None:
    """Put `how` in the place of one of torch's own operators."""
    if name == 'pack_weight':
        real = torch._C._nn.mkldnn_reorder_conv2d_weight
        monkeypatch.setattr(torch._C._nn, 'mkldnn_reorder_conv2d_weight', how(real) if how is wrong_by_a_half else how)
    elif name == 'addmm_relu':
        real = torch._addmm_activation
        monkeypatch.setattr(torch, '_addmm_activation', how(real) if how is wrong_by_a_half else how)
    else:
        real = torch.ops.mkldnn
        overload = 'default' if name == 'conv2d' else 'binary'
        own = getattr(getattr(real, ONEDNN[name]), overload)
        packet = types.SimpleNamespace(**{overload: how(own) if how is wrong_by_a_half else how})
        known = {attribute: getattr(real, attribute) for attribute in (*ONEDNN.values(), '_is_mkldnn_bf16_supported')}
        monkeypatch.setattr(torch.ops, 'mkldnn', types.SimpleNamespace(**{**known, ONEDNN[name]: packet}))


FAULTS = pytest.mark.parametrize('how', [absent, broken, wrong_by_a_half])


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='this torch has no oneDNN')
@FAULTS
@pytest.mark.parametrize('name', ['conv2d', 'conv2d_add', 'pack_weight'])
def test_a_network_computes_the_same_without_any_of_onednns(tiny, monkeypatch, said, name, how):
    trained, images = settled(FasterNet(**tiny)), torch.randn(2, 3, 64, 96)
    model = switch_to_deploy(copy.deepcopy(trained))
    spoil(monkeypatch, name, how)
    with torch.inference_mode():
        for _ in range(2):
            assert relative_error(model(images), trained(images)) < 1e-5
    assert len(said) == 1 and name in said[0] and 'ordinary operators serve' in said[0]


@FAULTS
def test_a_product_is_the_same_without_its_activation(monkeypatch, said, how):
    conv = settled(nn.Conv2d(8, 16, 1))
    fused, x = FusedConv2d(conv, nn.ReLU()), torch.randn(2, 8, 6, 5).contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(fused_conv, 'onednn_dtype', lambda x: None)
    monkeypatch.setattr(fused_conv, 'takes_cublaslt', lambda x: True)  # the product exists on a CPU, too
    spoil(monkeypatch, 'addmm_relu', how)
    with torch.inference_mode():
        assert relative_error(fused(x), conv(x).relu()) < 1e-5
    assert len(said) == 1 and 'addmm_relu' in said[0]


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='this torch has no oneDNN')
def test_each_is_tried_once_and_leaves_the_random_state_alone(tiny, said, monkeypatch):
    model, images = switch_to_deploy(settled(FasterNet(**tiny))), torch.randn(1, 3, 64, 64)
    tried = []
    trial = private._tried
    monkeypatch.setattr(private, '_tried', lambda *key: tried.append(key) or trial(*key))
    before = torch.get_rng_state()
    with torch.inference_mode():
        for _ in range(3):
            model(images)
    assert torch.equal(torch.get_rng_state(), before) and not said
    operators = private.conv2d, private.conv2d_add, private.pack_weight
    assert sorted(map(str, tried)) == sorted(str((operator, 'cpu', torch.float32)) for operator in operators)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_other_dtypes_take_ordinary_operators_without_a_word(said, dtype):
    assert not private.works(private.conv2d, 'cpu', dtype) and not said


@pytest.mark.parametrize('affine', [True, False])
@pytest.mark.parametrize('bias', [True, False])
def test_bn_fused_into_a_convolution(affine, bias):
    from fasternet_mm.ops import fuse_conv_bn

    net = settled(nn.Sequential(nn.Conv2d(4, 6, 3, bias=bias), nn.BatchNorm2d(6)))
    if not affine:
        net[1] = nn.BatchNorm2d(6, affine=False).eval()
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        want = net(x)
        assert relative_error(fuse_conv_bn(*net)(x), want) < 1e-6
