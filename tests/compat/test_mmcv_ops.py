"""mmcv.ops on mmcv-lite: equal to torchvision, or to a plain reference, on CPU and (where there is one) CUDA."""

import itertools
import subprocess
import sys

import mmcv.ops
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.utils import digit_version
from torch.autograd import gradcheck

from fasternet_mm.compat import mmcv_ext

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device on this machine')
DEVICES = ['cpu', pytest.param('cuda', marks=needs_cuda)]
# before torch 2.4, autocast on a CPU knows bf16 alone
OLD = digit_version(torch.__version__) < digit_version('2.4')
HALF = [pytest.param(torch.float16, marks=pytest.mark.skipif(OLD, reason='no fp16 autocast on CPU')), torch.bfloat16]


def random_boxes(count: int, size: float = 60, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=rng) * size
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=rng) * size / 2], dim=1)


def iou(box, boxes, offset):
    """Overlap of pixel boxes, one pair at a time as one would write it on paper."""
    width = np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0]) + offset
    height = np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1]) + offset
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    area = (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)
    return inter / ((box[2] - box[0] + offset) * (box[3] - box[1] + offset) + area - inter)


def reference_nms(boxes, scores, threshold, offset):
    boxes, order, kept = boxes.numpy().astype(np.float64), list(np.argsort(-scores.numpy())), []
    while order:
        best = order.pop(0)
        kept.append(best)
        order = [i for i in order if iou(boxes[best], boxes[[i]], offset)[0] <= threshold]
    return kept


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.9])
def test_nms(device, offset, threshold):
    boxes, scores = random_boxes(80), torch.rand(80)
    dets, kept = mmcv.ops.nms(boxes.to(device), scores.to(device), threshold, offset=offset)
    assert kept.tolist() == reference_nms(boxes, scores, threshold, offset)
    assert torch.equal(dets.cpu(), torch.cat([boxes[kept.cpu()], scores[kept.cpu(), None]], dim=1))


@pytest.mark.parametrize('device', DEVICES)
def test_batched_nms_keeps_classes_apart(device):
    boxes, scores, classes = random_boxes(60).to(device), torch.rand(60).to(device), torch.arange(60).to(device) % 3
    _, kept = mmcv.ops.batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.4))
    assert torch.equal(kept, torchvision.ops.batched_nms(boxes, scores, classes, 0.4))


@pytest.mark.parametrize('device', DEVICES)
def test_nms_of_no_boxes(device):
    dets, kept = mmcv.ops.nms(torch.zeros(0, 4, device=device), torch.zeros(0, device=device), 0.5)
    assert dets.shape == (0, 5) and kept.shape == (0,)


def reference_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    boxes, scores = boxes.numpy().astype(np.float64), scores.numpy().astype(np.float64).copy()
    left, kept = list(range(len(boxes))), []
    while left:
        best = max(left, key=lambda i: scores[i])
        kept.append((best, scores[best]))
        left.remove(best)
        for i in list(left):
            overlap = iou(boxes[best], boxes[[i]], offset)[0]
            if method == 'gaussian':
                scores[i] *= np.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                scores[i] *= 1 - overlap if method == 'linear' else 0
            if scores[i] < min_score:
                left.remove(i)
    return kept


@settings(max_examples=30, deadline=None)
@given(
    method=st.sampled_from(['naive', 'linear', 'gaussian']),
    offset=st.sampled_from([0, 1]),
    min_score=st.sampled_from([1e-3, 0.2, 0.7]),
    count=st.integers(0, 40),
    seed=st.integers(0, 100),
)
def test_soft_nms(method, offset, min_score, count, seed):
    boxes = random_boxes(count, seed=seed)
    scores = torch.rand(count, generator=torch.Generator().manual_seed(seed + 1))
    dets, kept = mmcv.ops.soft_nms(boxes, scores, 0.3, 0.5, min_score, method, offset)
    want = reference_soft_nms(boxes, scores, 0.3, 0.5, min_score, method, offset)
    assert kept.tolist() == [i for i, _ in want]
    assert torch.allclose(dets[:, 4], torch.tensor([s for _, s in want], dtype=torch.float32), atol=1e-6)
    assert torch.equal(dets[:, :4], boxes[kept])


def reference_nms_match(dets, threshold):
    left, groups = sorted(range(len(dets)), key=lambda i: -dets[i, 4]), []
    while left:
        best, *rest = left
        matched = [i for i in rest if iou(dets[best], dets[[i]], 0)[0] >= threshold]
        groups.append([best, *matched])
        left = [i for i in rest if i not in matched]
    return groups


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('count', [0, 1, 60])
def test_nms_match(device, count):
    dets = torch.cat([random_boxes(count), torch.rand(count, 1)], dim=1)
    want = reference_nms_match(dets.double().numpy(), 0.4)
    groups = mmcv.ops.nms_match(dets.to(device), 0.4)
    assert [group.tolist() for group in groups] == want and all(group.device.type == device for group in groups)
    assert [group.tolist() for group in mmcv.ops.nms_match(dets.numpy(), 0.4)] == want


def test_nms_match_of_empty_boxes_puts_each_into_a_group_of_its_own():
    dets = torch.tensor([[3.0, 3, 3, 3, 0.5], [3, 3, 3, 3, 0.9]])
    assert [group.tolist() for group in mmcv.ops.nms_match(dets, 0.5)] == [[1], [0]]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize('mode', ['iou', 'iof'])
@pytest.mark.parametrize('offset', [0, 1])
def test_bbox_overlaps(device, dtype, mode, offset):
    first, second = random_boxes(7).to(dtype), random_boxes(5, seed=1).to(dtype)
    want = np.stack([iou(box, second.double().numpy(), offset) for box in first.double().numpy()])
    if mode == 'iof':  # from the union back to the intersection
        areas = [((boxes[:, 2:] - boxes[:, :2] + offset).prod(1)).double().numpy() for boxes in (first, second)]
        want = want / (1 + want) * (areas[0][:, None] + areas[1]) / areas[0][:, None]
    want = torch.from_numpy(want)
    tolerance = dict(rtol=2e-3, atol=2e-3) if dtype == torch.float16 else dict(rtol=1e-5, atol=1e-6)
    first, second = first.to(device), second.to(device)
    got = mmcv.ops.bbox_overlaps(first, second, mode, offset=offset)
    assert got.dtype == dtype and torch.allclose(got.double().cpu(), want, **tolerance)
    pairs = mmcv.ops.bbox_overlaps(first[:5], second, mode, aligned=True, offset=offset)
    assert torch.allclose(pairs.double().cpu(), want[:5].diagonal(), **tolerance)
    assert mmcv.ops.bbox_overlaps(first[:0], second, mode).shape == (0, 5)


ROIS = torch.cat([torch.tensor([[0.0], [1], [1], [0], [0], [1]]), random_boxes(6)], dim=1)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('rois', [ROIS, ROIS[:0]], ids=['six rois', 'none'])
def test_roi_align_and_its_gradient(device, aligned, sampling_ratio, rois):
    rois = rois.to(device)
    ours = torch.randn(2, 5, 24, 24, device=device, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    got = mmcv.ops.RoIAlign((7, 5), 0.25, sampling_ratio, aligned=aligned)(ours, rois)
    want = torchvision.ops.roi_align(theirs, rois, (7, 5), 0.25, sampling_ratio, aligned)
    assert torch.equal(got, want)
    weights = torch.randn_like(got)
    (got * weights).sum().backward()
    (want * weights).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('roi_dtype', ['the same', torch.float32])
def test_roi_align_in_half_precision_under_autocast(device, dtype, roi_dtype):
    features = torch.randn(2, 5, 24, 24, device=device).to(dtype).requires_grad_()
    rois = ROIS.to(device, dtype if roi_dtype == 'the same' else roi_dtype)
    with torch.autocast(device, dtype=dtype):
        got = mmcv.ops.roi_align(features, rois, (7, 7), 0.25, 2, 'avg', True)
    wide = features.detach().float().requires_grad_()
    want = torchvision.ops.roi_align(wide, rois.float(), (7, 7), 0.25, 2, True)
    assert got.dtype == dtype and torch.equal(got, want.to(dtype))  # computed in fp32, rounded once
    got.float().sum().backward()
    want.sum().backward()
    assert torch.allclose(features.grad.float(), wide.grad, rtol=2**-7, atol=1e-2)


def reference_focal_loss(logits, target, gamma, alpha, weight):
    p = logits.double().sigmoid()
    positive = target[:, None] == torch.arange(logits.size(1), device=logits.device)
    loss = torch.where(positive, -alpha * (1 - p) ** gamma * p.log(), -(1 - alpha) * p**gamma * (1 - p).log())
    return loss if weight is None else loss * torch.cat([weight.double(), weight.new_ones(1)])[target][:, None]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss_and_its_gradient(device, reduction, weighted):
    target = torch.tensor([0, 3, 2, 4, 1, 4, 0], device=device)  # 4 is the background
    weight = torch.rand(4, device=device) if weighted else None
    ours = torch.randn(7, 4, device=device, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    got = mmcv.ops.sigmoid_focal_loss(ours, target, 2.0, 0.25, weight, reduction)
    want = reference_focal_loss(theirs, target, 2.0, 0.25, weight)
    want = dict(none=want, mean=want.sum() / 7, sum=want.sum())[reduction]
    assert torch.allclose(got.double(), want, rtol=1e-4, atol=1e-6)
    got.sum().backward()
    want.sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_sigmoid_focal_loss_has_finite_gradients_at_saturated_logits(gamma):
    logits = torch.tensor([[100.0, -100], [0, 200]], requires_grad=True)
    mmcv.ops.sigmoid_focal_loss(logits, torch.tensor([0, 1]), gamma, 0.25, None, 'sum').backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', HALF)
def test_sigmoid_focal_loss_in_half_precision_under_autocast(device, dtype):
    logits = torch.randn(7, 4, device=device).to(dtype).requires_grad_()
    target = torch.tensor([0, 3, 2, 4, 1, 4, 0], device=device)
    with torch.autocast(device, dtype=dtype):
        got = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    want = reference_focal_loss(logits.detach().float(), target, 2.0, 0.25, None)
    assert torch.allclose(got.double(), want, rtol=2**-7, atol=1e-3)
    got.sum().backward()
    assert logits.grad.isfinite().all()


GEOMETRIES = [
    dict(stride=1, padding=1, dilation=1, groups=1, deform_groups=1),
    dict(stride=2, padding=2, dilation=2, groups=2, deform_groups=2),
    dict(stride=(1, 2), padding=(0, 1), dilation=(2, 1), groups=2, deform_groups=1),
]


def deform_inputs(geometry, device, dtype=torch.float32):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 9, 8), torch.randn(6, 4 // geometry['groups'], 3, 3)
    plain = torch.nn.functional.conv2d(
        x, weight, None, *(geometry[k] for k in ('stride', 'padding', 'dilation', 'groups'))
    )
    points = 9 * geometry['deform_groups']
    offset = torch.randn(2, 2 * points, *plain.shape[2:])
    mask = torch.rand(2, points, *plain.shape[2:])
    bias = torch.randn(6)
    return [t.to(device, dtype).requires_grad_() for t in (x, offset, mask, weight, bias)]


def torchvision_deform_conv(x, offset, mask, weight, bias, geometry):
    return torchvision.ops.deform_conv2d(
        x, offset, weight, bias, *(geometry[k] for k in ('stride', 'padding', 'dilation')), mask
    )


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('geometry', GEOMETRIES)
@pytest.mark.parametrize('modulated', [False, True], ids=['v1', 'v2'])
def test_deformable_convolution_and_its_gradients(device, geometry, modulated):
    ours, theirs = deform_inputs(geometry, device), deform_inputs(geometry, device)
    if modulated:
        got = mmcv.ops.modulated_deform_conv2d(*ours, *geometry.values())
        want = torchvision_deform_conv(*theirs, geometry)
    else:  # v1 has neither mask nor bias
        x, offset, _, weight, _ = ours
        got = mmcv.ops.deform_conv2d(x, offset, weight, *geometry.values())
        x, offset, _, weight, _ = theirs
        want = torchvision_deform_conv(x, offset, None, weight, None, geometry)
    assert torch.allclose(got, want, atol=1e-5)
    got.pow(2).sum().backward()
    want.pow(2).sum().backward()
    for a, b in zip(ours, theirs):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('device', DEVICES)
def test_an_offset_that_is_nan_shows_where_it_is(device):
    x, offset, _, weight, _ = deform_inputs(GEOMETRIES[0], device)
    want = mmcv.ops.deform_conv2d(x, offset, weight, *GEOMETRIES[0].values()).detach()
    broken = offset.detach().clone()
    broken[0, 3, 1, 2] = torch.nan
    got = mmcv.ops.deform_conv2d(x, broken.requires_grad_(), weight, *GEOMETRIES[0].values())
    assert got[0, :, 1, 2].isnan().all() and got.isnan().sum() == got.size(1)
    assert torch.equal(got.detach().nan_to_num(0), want.masked_fill(got.isnan(), 0))
    got.sum().backward()  # ends, too


@pytest.mark.parametrize('device', DEVICES)
def test_modulated_deformable_convolution_without_bias(device):
    x, offset, mask, weight, _ = deform_inputs(GEOMETRIES[0], device)
    got = mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, None, *GEOMETRIES[0].values())
    want = torchvision_deform_conv(x, offset, mask, weight, None, GEOMETRIES[0])
    assert torch.allclose(got, want, atol=1e-5)
    got.sum().backward()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('modulated', [False, True], ids=['v1', 'v2'])
def test_deformable_convolution_under_autocast(device, dtype, modulated):
    geometry = GEOMETRIES[0]
    x, offset, mask, weight, bias = deform_inputs(geometry, device)
    offset16, mask16 = (t.detach().to(dtype).requires_grad_() for t in (offset, mask))  # as the convs before give
    with torch.autocast(device, dtype=dtype):
        if modulated:
            got = mmcv.ops.modulated_deform_conv2d(x, offset16, mask16, weight, bias, *geometry.values())
        else:
            got = mmcv.ops.deform_conv2d(x, offset16, weight, *geometry.values())
    want = torchvision_deform_conv(x, offset16.float(), mask16.float() if modulated else None, weight,
                                   bias if modulated else None, geometry)  # fmt: skip
    assert got.dtype == dtype and (got.float() - want).norm() / want.norm() < 0.02
    got.float().pow(2).sum().backward()
    assert all(t.grad.isfinite().all() for t in (x, offset16, weight))


def reference_deform_conv(x, offset, mask, weight, bias, stride, padding):
    """One group, no dilation: every output is a sum over the kernel of values between four pixels."""
    n, channels, height, width = x.shape
    size = [(extent + 2 * padding - 3) // stride + 1 for extent in (height, width)]
    output = bias[None, :, None, None].repeat(n, 1, *size)
    for b, y, column, k in itertools.product(range(n), *map(range, size), range(9)):
        at_y = y * stride - padding + k // 3 + offset[b, 2 * k, y, column].item()
        at_x = column * stride - padding + k % 3 + offset[b, 2 * k + 1, y, column].item()
        value = torch.zeros(channels, dtype=x.dtype)
        for i, j in itertools.product(range(height), range(width)):
            value = value + x[b, :, i, j] * max(1 - abs(i - at_y), 0) * max(1 - abs(j - at_x), 0)
        output[b, :, y, column] += weight[:, :, k // 3, k % 3] @ value * mask[b, k, y, column]
    return output


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('stride, size', [(1, (4, 5)), (2, (2, 3))])
@pytest.mark.parametrize('batch', [1, 3])
def test_maps_of_offsets_larger_than_the_output_are_read_as_buffers_of_its_size(device, stride, size, batch):
    """As a compiled mmcv does, and DyHead has it do: the offsets of one level, 8 x 9, move the kernel on another."""
    rng = torch.Generator().manual_seed(0)
    shapes = (batch, 2, 4, 5), (batch, 18, 8, 9), (batch, 9, 8, 9), (3, 2, 3, 3), (3,)
    inputs = [torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in shapes]
    x, offset, mask, weight, bias = inputs

    def read(maps):
        return maps.flatten(1)[:, : maps.size(1) * size[0] * size[1]].unflatten(1, (-1, *size))

    want = reference_deform_conv(x, read(offset), read(mask), weight, bias, stride, padding=1)
    inputs = [tensor.to(device).requires_grad_() for tensor in inputs]
    got = mmcv.ops.modulated_deform_conv2d(*inputs, stride, 1)
    torch.testing.assert_close(got.detach().cpu(), want)
    if batch == 1:
        assert gradcheck(lambda *inputs: mmcv.ops.modulated_deform_conv2d(*inputs, stride, 1), inputs, fast_mode=True)


def test_a_map_of_offsets_that_is_too_small_is_refused():
    with pytest.raises(RuntimeError, match='offset'):
        mmcv.ops.modulated_deform_conv2d(
            torch.rand(1, 2, 4, 5), torch.rand(1, 18, 3, 4), torch.rand(1, 9, 3, 4), torch.rand(3, 2, 3, 3), None, 1, 1
        )


def test_an_operator_that_is_missing_says_so_when_called():
    with pytest.raises(
        NotImplementedError, match=r'mmcv\._ext\.border_align_forward needs a compiled mmcv.*mim install'
    ):
        mmcv.ops.border_align(torch.rand(1, 4, 8, 8), torch.rand(1, 64, 4), 2)


def test_a_compiled_mmcv_wins(tmp_path):
    # stands for _ext.cpython-*.so in mmcv's folder, with all its functions
    (tmp_path / '_ext.py').write_text('compiled = True\ndef __getattr__(name):\n    return print\n')
    code = (
        f'import mmcv; mmcv.__path__.append({str(tmp_path)!r}); import fasternet_mm; '
        'import mmcv._ext; print(mmcv._ext.compiled is True)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == 'True', done.stderr


def test_without_any_mmcv_import_says_which_to_install(monkeypatch):
    monkeypatch.setattr(mmcv_ext.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='pip install mmcv-lite==2.1.0.*or a compiled mmcv'):
        mmcv_ext.require_mmcv()
