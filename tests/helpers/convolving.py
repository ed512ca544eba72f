"""A small file of the form that ``tools/export.py --what detector`` writes, whose boxes and masks are computed."""

import json
from pathlib import Path

import numpy as np
import pytest

from .exported import METADATA

# one RoI, and none in the dark; its box comes from features, and its mask from features in the box
GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
detector (uint8[1,H,W,3] image) => (float[N,4] boxes, float[N] scores, int64[N] labels, float[N,h,w] masks)
<float[1,3,1,1] mean = {100, 110, 120}, float[1,3,1,1] std = {58, 57, 56}, float[4] base = {2, 3, 40, 45},
 float[4] stretch = {2, 2, 2, 2}, float[1] dark = {0.2}, float[1] brightest = {255}, int64[2] four = {1, 4},
 int64[1] one = {1}, int64[2] places = {1, 2}, int64[1] class = {1}, int64[1] zero = {0}>
{
    values = Cast <to = 1> (image)
    planes = Transpose <perm = [0, 3, 1, 2]> (values)
    centred = Sub (planes, mean)
    pixels = Div (centred, std)
    stem = Conv <pads = [1, 1, 1, 1]> (pixels, stem_weight)
    features = Relu (stem)
    branch = Conv <pads = [1, 1, 1, 1]> (features, branch_weight)
    sum = Add (features, branch)
    deltas = Conv (sum, box_weight)
    delta = GlobalAveragePool (deltas)
    flat = Reshape (delta, four)
    offset = Mul (flat, stretch)
    box = Add (offset, base)
    mean_value = ReduceMean <keepdims = 0> (values)
    score = Div (mean_value, brightest)
    found = Greater (score, dark)
    boxes = Compress <axis = 0> (box, found)
    scores = Compress <axis = 0> (score, found)
    labels = Compress <axis = 0> (class, found)
    batch = Compress <axis = 0> (zero, found)
    rois = RoiAlign <output_height = 7, output_width = 7, sampling_ratio = 2> (sum, boxes, batch)
    logits = Conv <pads = [1, 1, 1, 1]> (rois, mask_weight)
    probabilities = Sigmoid (logits)
    masks = Squeeze (probabilities, one)
}
"""


def write_convolving(path: Path, **metadata) -> Path:
    """Write the detector with random weights, with :data:`METADATA` except for what is given."""
    onnx = pytest.importorskip('onnx')
    model, rng = onnx.parser.parse_model(GRAPH), np.random.RandomState(0)
    for name, shape in dict(stem=(8, 3, 3, 3), branch=(8, 8, 3, 3), box=(4, 8, 1, 1), mask=(1, 8, 3, 3)).items():
        weight = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, f'{name}_weight'))
    for key, value in (METADATA | metadata).items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path
