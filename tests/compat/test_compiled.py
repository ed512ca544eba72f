"""mmcv.ops on mmcv-lite gives what a compiled mmcv 2.1.0 gave on a CPU, whose answers lie beside the repository."""

import mmcv.ops as ops
import numpy as np
import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

from ..helpers import SHARED

pytestmark = pytest.mark.skipif(
    not (SHARED / 'mmcv_ops').exists(), reason='the answers of ../shared/mmcv_ops are not here'
)


def roi_align(mode, sampling_ratio, aligned):
    return lambda input, rois: ops.roi_align(input, rois, (5, 7), 0.25, sampling_ratio, mode, aligned)


def deform_conv(input, offset, weight):
    return ops.deform_conv2d(input, offset, weight, 1, 1)


def modulated_deform_conv(input, offset, mask, weight, bias):
    return ops.modulated_deform_conv2d(input, offset, mask, weight, bias, 1, 1)


def attention(value, shapes, locations, weights):
    starts = torch.tensor([0, 20])
    return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)


CALLS = {
    'nms': lambda boxes, scores: ops.nms(boxes, scores, 0.5),
    'nms_offset1': lambda boxes, scores: ops.nms(boxes, scores, 0.5, offset=1),
    'nms_match': lambda dets: [ops.nms_match(dets, 0.4)],
    'batched_nms': lambda boxes, scores, idxs: ops.batched_nms(boxes, scores, idxs, dict(iou_threshold=0.5)),
    'bbox_overlaps_iou': lambda a, b: ops.bbox_overlaps(a, b),
    'bbox_overlaps_iof_offset1': lambda a, b: ops.bbox_overlaps(a, b, 'iof', offset=1),
    'corner_pool_top': lambda input: ops.CornerPool('top')(input),
    'deform_conv_batch1': deform_conv,
    'deform_conv_batch2': deform_conv,
    'deform_conv_batch3': deform_conv,
    'deform_conv_batch5': deform_conv,
    'modulated_deform_conv_batch1': modulated_deform_conv,
    'modulated_deform_conv_batch2': modulated_deform_conv,
    'modulated_deform_conv_batch3': modulated_deform_conv,
    'modulated_deform_conv_batch5': modulated_deform_conv,
    'modulated_deform_conv_groups_stride2': lambda *tensors: ops.modulated_deform_conv2d(*tensors, 2, 1, 1, 2, 2),
    'multi_scale_deformable_attention': attention,
    'psa_mask_0': lambda input: ops.PSAMask('collect', (5, 5))(input),
    'psa_mask_1': lambda input: ops.PSAMask('distribute', (5, 5))(input),
    'roi_align_avg_sr0_aligned': roi_align('avg', 0, True),
    'roi_align_avg_sr0_legacy': roi_align('avg', 0, False),
    'roi_align_avg_sr2_aligned': roi_align('avg', 2, True),
    'roi_align_avg_sr2_legacy': roi_align('avg', 2, False),
    'roi_align_max_sr0_aligned': roi_align('max', 0, True),
    'roi_align_max_sr0_legacy': roi_align('max', 0, False),
    'roi_align_max_sr2_aligned': roi_align('max', 2, True),
    'roi_align_max_sr2_legacy': roi_align('max', 2, False),
    'soft_nms_naive': lambda boxes, scores: ops.soft_nms(boxes, scores, 0.4, 0.5, 1e-2, 'naive'),
    'soft_nms_linear': lambda boxes, scores: ops.soft_nms(boxes, scores, 0.4, 0.5, 1e-2, 'linear'),
    'soft_nms_gaussian': lambda boxes, scores: ops.soft_nms(boxes, scores, 0.4, 0.5, 1e-2, 'gaussian'),
}


@pytest.mark.parametrize('name', CALLS)
def test_answers_and_gradients(name):
    stored = {key: torch.from_numpy(value) for key, value in np.load(SHARED / 'mmcv_ops' / f'{name}.npz').items()}
    inputs = {key.removeprefix('in_'): value for key, value in stored.items() if key.startswith('in_')}
    for key, value in inputs.items():
        value.requires_grad_(f'grad_{key}' in stored)
    got = CALLS[name](*inputs.values())
    got = [got] if torch.is_tensor(got) else got
    for index, value in enumerate(got):
        if isinstance(value, list):  # groups of nms_match
            assert [group.tolist() for group in value] == [
                stored[f'out{index}_{at}'].tolist() for at in range(len(value))
            ]
            assert f'out{index}_{len(value)}' not in stored
        else:
            torch.testing.assert_close(value.detach(), stored[f'out{index}'], rtol=1e-5, atol=1e-5)
    weight = stored.get('grad_weight')
    if weight is None or 'weight' in inputs:  # there the file holds the gradient of an input under this name
        return
    (got[0] * weight).sum().backward()
    for key, value in inputs.items():
        if value.requires_grad:
            torch.testing.assert_close(value.grad, stored[f'grad_{key}'], rtol=1e-4, atol=1e-4)
