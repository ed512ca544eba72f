"""RoIAlign by maximum, RoIPool and deformable RoI pooling of mmcv.ops on mmcv-lite, against loops over bins."""

import math

import mmcv.ops
import pytest
import torch
from torch.autograd import gradcheck

from .test_mmcv_ops import DEVICES, HALF

BINS, SCALE = (2, 3), 0.5
ROIS = torch.tensor(
    [
        [0, 1.3, 2.1, 9.7, 12.2],
        [1, 0, 0, 15.9, 13.9],  # the whole map
        [1, -9.1, -3.2, 5.3, 6.4],  # over its edge
        [0, 40, 40, 60, 60],  # outside
        [0, 5.2, 5.2, 5.2, 9.1],  # empty
        [1, 3.1, 4.2, 3.9, 5.1],  # smaller than a pixel
    ],
    dtype=torch.float64,
)
FEATURES = torch.randn(2, 3, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ROI_SETS = [pytest.param(ROIS, id='six rois'), pytest.param(ROIS[:0], id='none')]


def check_gradient(pool, rois, features, *offset):
    """By finite differences along one random direction."""
    inputs = [tensor.clone().requires_grad_() for tensor in (features, *offset)]
    assert gradcheck(lambda features, *offset: pool(features, rois, *offset), inputs, fast_mode=True)


def sample(plane, y, x):
    """The value between four pixels; up to one pixel outside it is that of the border, and 0 beyond."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(())
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    above = plane[top, left] * (1 - (x - left)) + plane[top, right] * (x - left)
    below = plane[bottom, left] * (1 - (x - left)) + plane[bottom, right] * (x - left)
    return above * (1 - (y - top)) + below * (y - top)


def reference_align(features, rois, sampling_ratio, aligned, reduce, shifts=None):
    """Pool by `reduce` of the samples of each bin; `shifts` (K, 2, bins), x before y, are in sizes of the RoI."""
    output = torch.zeros(len(rois), features.size(1), *BINS, dtype=torch.float64)
    for k, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (value * SCALE - 0.5 * aligned for value in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        rows, columns = (sampling_ratio or math.ceil(size / n) for size, n in zip((height, width), BINS))
        for c, i, j in torch.cartesian_prod(*map(torch.arange, output.shape[1:])).tolist():
            dx, dy = (0, 0) if shifts is None else (shifts[k, :, i, j] * torch.tensor([width, height])).tolist()
            samples = [
                sample(
                    features[int(image), c],
                    y1 + dy + height / BINS[0] * (i + (row + 0.5) / rows),
                    x1 + dx + width / BINS[1] * (j + (column + 0.5) / columns),
                )
                for row in range(rows)
                for column in range(columns)
            ]
            output[k, c, i, j] = reduce(torch.stack(samples)) if samples else 0
    return output


def reference_roi_pool(features, rois):
    output = torch.zeros(len(rois), features.size(1), *BINS, dtype=torch.float64)
    for k, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = corners[0] * SCALE, corners[1] * SCALE, (corners[2] + 1) * SCALE, (corners[3] + 1) * SCALE
        for i in range(BINS[0]):
            for j in range(BINS[1]):
                top, bottom = y1 + (y2 - y1) / BINS[0] * i, y1 + (y2 - y1) / BINS[0] * (i + 1)
                left, right = x1 + (x2 - x1) / BINS[1] * j, x1 + (x2 - x1) / BINS[1] * (j + 1)
                pixels = features[int(image), :, max(math.floor(top), 0) : max(math.ceil(bottom), 0),
                                  max(math.floor(left), 0) : max(math.ceil(right), 0)].flatten(1)  # fmt: skip
                output[k, :, i, j] = pixels.amax(dim=1) if pixels.size(1) else 0
    return output


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('rois', ROI_SETS)
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_by_maximum(device, rois, aligned, sampling_ratio):
    pool = mmcv.ops.RoIAlign(BINS, SCALE, sampling_ratio, 'max', aligned)
    got = pool(FEATURES.to(device), rois.to(device)).cpu()
    torch.testing.assert_close(got, reference_align(FEATURES, rois, sampling_ratio, aligned, torch.amax))
    if len(rois):
        check_gradient(pool, rois.to(device), FEATURES.to(device))


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('rois', ROI_SETS)
def test_roi_pool(device, rois):
    pool = mmcv.ops.RoIPool(BINS, SCALE)
    got = pool(FEATURES.to(device), rois.to(device)).cpu()
    assert torch.equal(got, reference_roi_pool(FEATURES, rois))
    if len(rois):
        check_gradient(pool, rois.to(device), FEATURES.to(device))


@pytest.mark.parametrize('device', DEVICES)
def test_roi_pool_leads_the_gradient_of_equal_pixels_to_the_first(device):
    features = torch.zeros(1, 1, 4, 4, device=device, requires_grad=True)  # as behind a ReLU
    mmcv.ops.roi_pool(features, torch.tensor([[0.0, 1, 1, 3, 3]], device=device), (1, 1), 1.0).sum().backward()
    assert features.grad.nonzero().tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('rois', ROI_SETS)
@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('shifted', [True, False])
def test_deformable_roi_pooling(device, rois, sampling_ratio, shifted):
    pool = mmcv.ops.DeformRoIPool(BINS, SCALE, sampling_ratio, gamma=0.1)
    offset = torch.randn(len(rois), 2, *BINS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = pool(FEATURES.to(device), rois.to(device), offset.to(device) if shifted else None).cpu()
    want = reference_align(FEATURES, rois, sampling_ratio, True, torch.mean, 0.1 * offset if shifted else None)
    torch.testing.assert_close(got, want)
    if len(rois):
        check_gradient(pool, rois.to(device), FEATURES.to(device), *[offset.to(device)] * shifted)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('pack', ['DeformRoIPoolPack', 'ModulatedDeformRoIPoolPack'])
def test_deformable_roi_pooling_learns_its_offsets(device, pack):
    pool = getattr(mmcv.ops, pack)(BINS, 3, 8, SCALE, 2).to(device)
    pool(FEATURES.to(device, torch.float32), ROIS.to(device, torch.float32)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in pool.parameters())
    assert pool.offset_fc[-1].weight.grad.any()


def test_an_offset_that_is_nan_shows():
    offset = torch.zeros(6, 2, *BINS, dtype=torch.float64)
    offset[0, 0, 0, 0] = torch.nan
    pooled = mmcv.ops.deform_roi_pool(FEATURES, ROIS, offset, BINS, SCALE, 2)
    assert pooled.isnan().nonzero().tolist() == [[0, channel, 0, 0] for channel in range(3)]


POOLS = {
    'RoIAlign': lambda features, rois: mmcv.ops.roi_align(features, rois, BINS, SCALE, 2, 'max', True),
    'RoIPool': lambda features, rois: mmcv.ops.roi_pool(features, rois, BINS, SCALE),
    'DeformRoIPool': lambda features, rois: mmcv.ops.deform_roi_pool(features, rois, None, BINS, SCALE, 2, 0.1),
}


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('pool', POOLS.values(), ids=POOLS)
def test_pooling_in_half_precision_is_computed_in_float32_and_rounded_once(device, dtype, pool):
    features, rois = FEATURES.to(device, dtype).requires_grad_(), ROIS.to(device, dtype)
    wide = features.detach().float().requires_grad_()
    got, want = pool(features, rois), pool(wide, rois.float())
    assert got.dtype == dtype and torch.equal(got, want.to(dtype))
    got.float().sum().backward()
    want.sum().backward()
    assert torch.allclose(features.grad.float(), wide.grad, rtol=2**-7, atol=0.05)


def test_many_rois_of_all_sizes_are_pooled_in_pieces(monkeypatch):
    from fasternet_mm.compat.ops import roi

    rois = ROIS.repeat(5, 1)
    for pool in POOLS.values():
        whole = pool(FEATURES, rois)
        with monkeypatch.context() as patch:
            patch.setattr(roi, '_MEMORY', 1)  # one RoI at a time
            assert torch.equal(pool(FEATURES, rois), whole)
