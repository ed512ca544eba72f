"""CARAFE, masked convolution, attention and synchronized BN of mmcv.ops on mmcv-lite, against loops or PyTorch."""

import itertools

import mmcv._ext
import mmcv.ops
import pytest
import torch
import torch.distributed as dist
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from torch.autograd import gradcheck

from .test_mmcv_ops import DEVICES, HALF


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def reference_carafe(features, masks, kernel, groups, scale):
    n, channels, height, width = features.shape
    output = features.new_zeros(n, channels, scale * height, scale * width)
    for b, c, y, x in itertools.product(*map(range, output.shape)):
        group = c // (channels // groups)
        for i, j in itertools.product(range(kernel), repeat=2):
            row, column = y // scale + i - kernel // 2, x // scale + j - kernel // 2
            if 0 <= row < height and 0 <= column < width:
                weight = masks[b, (group * kernel + i) * kernel + j, y, x]
                output[b, c, y, x] += features[b, c, row, column] * weight
    return output


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('kernel, groups, scale', [(3, 1, 2), (5, 2, 1), (1, 2, 3)])
def test_carafe(device, kernel, groups, scale):
    features, masks = randn(2, 4, 3, 2), randn(2, kernel**2 * groups, 3 * scale, 2 * scale)
    want = reference_carafe(features, masks, kernel, groups, scale)
    features, masks = (tensor.to(device).requires_grad_() for tensor in (features, masks))
    for function in (mmcv.ops.carafe, mmcv.ops.carafe_naive):
        torch.testing.assert_close(function(features, masks, kernel, groups, scale).detach().cpu(), want)
    assert gradcheck(lambda *inputs: mmcv.ops.carafe(*inputs, kernel, groups, scale), [features, masks], fast_mode=True)


def test_carafe_of_no_rois():
    features, masks = torch.zeros(0, 4, 3, 2, requires_grad=True), torch.zeros(0, 9, 6, 4, requires_grad=True)
    output = mmcv.ops.carafe(features, masks, 3, 1, 2)
    assert output.shape == (0, 4, 6, 4)
    output.sum().backward()
    assert features.grad.shape == features.shape


def test_the_naive_carafe_has_the_gradients_of_the_other():
    features, masks = randn(2, 4, 3, 2).requires_grad_(), randn(2, 9, 6, 4).requires_grad_()
    output = mmcv.ops.carafe(features, masks, 3, 1, 2)
    output.square().sum().backward()
    grads = torch.zeros_like(features), torch.zeros_like(masks)
    # mmcv.ops.carafe_naive asks for a gradient on CUDA alone
    mmcv._ext.carafe_naive_backward(
        2 * output.detach(), features.detach(), masks.detach(), *grads, kernel_size=3, group_size=1, scale_factor=2
    )
    assert torch.equal(grads[0], features.grad) and torch.equal(grads[1], masks.grad)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('kernel, padding', [((3, 3), (1, 1)), ((1, 5), (0, 2)), ((3, 3), (0, 0))])
def test_masked_convolution_is_a_convolution_at_the_places_of_the_mask(device, kernel, padding):
    conv = mmcv.ops.MaskedConv2d(4, 5, kernel, padding=padding).to(device).eval()
    x = torch.randn(1, 4, 6, 7, device=device)
    whole = conv(x)
    mask = torch.rand(1, 6, 7, device=device) > 0.5
    mask[:, whole.size(2) :] = mask[:, :, whole.size(3) :] = False
    got = conv(x, mask)
    torch.testing.assert_close(got, whole * mask[:, : whole.size(2), : whole.size(3)])


@pytest.mark.parametrize('device', DEVICES)
def test_masked_convolution_nowhere(device):
    conv = mmcv.ops.MaskedConv2d(4, 5, 3, padding=1).to(device)
    assert not conv(torch.randn(1, 4, 6, 7, device=device), torch.zeros(1, 6, 7, device=device)).any()


def reference_psa_mask(masks, size, collect):
    n, _, height, width = masks.shape
    output = masks.new_zeros(n, height * width, height * width)
    for y, x, i, j in itertools.product(range(height), range(width), range(size[0]), range(size[1])):
        row, column = y + i - (size[0] - 1) // 2, x + j - (size[1] - 1) // 2
        if 0 <= row < height and 0 <= column < width:
            where = (row * width + column, y * width + x)
            output[(slice(None), *(where if collect else where[::-1]))] = masks[:, i * size[1] + j, y, x]
    return output.view(n, -1, height, width)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('psa_type', ['collect', 'distribute'])
@pytest.mark.parametrize('size', [(3, 5), (7, 7)])
def test_psa_mask(device, psa_type, size):
    layer = mmcv.ops.PSAMask(psa_type, size)
    masks = randn(2, size[0] * size[1], 3, 4)
    want = reference_psa_mask(masks, size, psa_type == 'collect')
    masks = masks.to(device).requires_grad_()
    assert torch.equal(layer(masks).detach().cpu(), want)
    assert gradcheck(layer, masks, fast_mode=True)


def reference_attention(value, shapes, locations, weights):
    """Sum of the values between pixels, whose centres lie at half pixels; beyond the map they are 0."""
    n, queries, heads, levels, points = weights.shape
    output = value.new_zeros(n, queries, heads, value.size(-1))
    starts = [0, *itertools.accumulate(height * width for height, width in shapes)]
    for b, q, h, level, p in itertools.product(*map(range, (n, queries, heads, levels, points))):
        height, width = shapes[level]
        plane = value[b, starts[level] : starts[level + 1], h].view(height, width, -1)
        x, y = (locations[b, q, h, level, p] * torch.tensor([width, height]) - 0.5).tolist()
        for row, column in itertools.product(range(height), range(width)):
            near = max(1 - abs(row - y), 0) * max(1 - abs(column - x), 0)
            output[b, q, h] += weights[b, q, h, level, p] * near * plane[row, column]
    return output.flatten(2)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('im2col_step', [1, 64])
def test_multi_scale_deformable_attention_as_mmcv_calls_it_on_cuda(device, im2col_step):
    shapes = [(3, 4), (2, 2)]
    value, weights = randn(3, 16, 2, 3), randn(3, 2, 2, 2, 2)
    locations = 0.5 + 0.4 * randn(3, 2, 2, 2, 2, 2)  # some are outside
    want = reference_attention(value, shapes, locations, weights)
    starts = torch.tensor([0, 12], device=device)

    def attend(value, locations, weights):
        levels = torch.tensor(shapes, device=device)
        return MultiScaleDeformableAttnFunction.apply(value, levels, starts, locations, weights, im2col_step)

    inputs = [tensor.to(device).requires_grad_() for tensor in (value, locations, weights)]
    torch.testing.assert_close(attend(*inputs).detach().cpu(), want)
    assert gradcheck(attend, inputs, fast_mode=True)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', HALF)
def test_half_precision_is_computed_in_float32_and_rounded_once(device, dtype):
    shapes, starts = torch.tensor([[3, 4]], device=device), torch.tensor([0], device=device)
    calls = [
        (lambda *inputs: mmcv.ops.carafe(*inputs, 3, 1, 2), [randn(2, 4, 3, 2), randn(2, 9, 6, 4)]),
        (mmcv.ops.PSAMask('collect', (3, 3)), [randn(2, 9, 3, 4)]),
        (
            lambda *inputs: MultiScaleDeformableAttnFunction.apply(inputs[0], shapes, starts, *inputs[1:], 64),
            [randn(2, 12, 2, 4), randn(2, 3, 2, 1, 2, 2).sigmoid(), randn(2, 3, 2, 1, 2)],
        ),
    ]
    for function, inputs in calls:
        narrow = [tensor.to(device, dtype).requires_grad_() for tensor in inputs]
        wide = [tensor.detach().float().requires_grad_() for tensor in narrow]
        got, want = function(*narrow), function(*wide)
        assert got.dtype == dtype and torch.equal(got, want.to(dtype))
        got.float().sum().backward()
        want.sum().backward()
        for a, b in zip(narrow, wide):
            assert torch.allclose(a.grad.float(), b.grad, rtol=2**-7, atol=0.05)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('mode', ['top', 'bottom', 'left', 'right'])
def test_corner_pooling_which_mmcv_computes_in_pytorch(device, mode):
    x = randn(2, 3, 4, 5)
    want = torch.empty_like(x)
    for i, j in itertools.product(range(4), range(5)):
        rows = slice(i, None) if mode == 'top' else slice(None, i + 1) if mode == 'bottom' else slice(i, i + 1)
        columns = slice(j, None) if mode == 'left' else slice(None, j + 1) if mode == 'right' else slice(j, j + 1)
        want[..., i, j] = x[..., rows, columns].amax(dim=(2, 3))
    x = x.to(device).requires_grad_()
    assert torch.equal(mmcv.ops.CornerPool(mode)(x).detach().cpu(), want)
    assert gradcheck(mmcv.ops.CornerPool(mode), x)


@pytest.fixture
def one_process():
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('stats_mode', ['default', 'N'])
def test_synchronized_bn_of_one_process_is_bn(one_process, device, stats_mode):
    layer = mmcv.ops.SyncBatchNorm(4, stats_mode=stats_mode).to(device)
    plain = torch.nn.BatchNorm2d(4).to(device)
    plain.load_state_dict(layer.state_dict())
    x = (3 + 2 * torch.randn(3, 4, 5, 6, device=device)).requires_grad_()
    y = x.detach().clone().requires_grad_()
    got, want = layer(x), plain(y)
    torch.testing.assert_close(got, want)
    weights = torch.randn_like(got)
    (got * weights).sum().backward()
    (want * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(dict(layer.state_dict()), dict(plain.state_dict()))
    for a, b in zip(layer.parameters(), plain.parameters()):
        torch.testing.assert_close(a.grad, b.grad)


def test_synchronized_bn_takes_no_images_and_keeps_its_statistics(one_process):
    layer = mmcv.ops.SyncBatchNorm(4)
    assert layer(torch.zeros(0, 4, 5, 6)).shape == (0, 4, 5, 6)
    assert layer.running_var.isfinite().all()
