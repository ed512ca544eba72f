"""Small files of the form that ``tools/export.py --what detector`` writes, which need no exporter."""

import json
from pathlib import Path

import numpy as np
import pytest

METADATA = dict(
    task='instance segmentation',
    producer='fasternet_mm 0.0.0',
    config='x.py',
    classes=['disc', 'square'],
    score_threshold=0.05,
    mask_threshold=0.5,
    resize=dict(scale=[133, 80], keep_ratio=True),
    pad=dict(size=None, value=[104, 116, 124]),
    shape=None,
)
# the whole input with a mask of its upper left, and a part of it; scored by the brightest value, so not in the dark
GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
detector (uint8[1,H,W,3] image) => (float[N,4] boxes, float[N] scores, int64[N] labels, float[N,h,w] masks)
<float[2,4] fractions = {0, 0, 1, 1, 0.25, 0.25, 0.75, 0.5}, float[2] parts = {0.00390625, 0.001953125},
 float lowest = {0.05}, int64[4] order = {1, 0, 1, 0}, int64[2] classes = {1, 0}, float[2,28,28] probabilities = {}>
{
    pixels = Cast <to = 1> (image)
    brightest = ReduceMax <keepdims = 0> (pixels)
    all_scores = Mul (parts, brightest)
    found = Greater (all_scores, lowest)
    shape = Shape <start = 1, end = 3> (image)
    width_height = Gather (shape, order)
    size = Cast <to = 1> (width_height)
    all_boxes = Mul (fractions, size)
    boxes = Compress <axis = 0> (all_boxes, found)
    scores = Compress <axis = 0> (all_scores, found)
    labels = Compress <axis = 0> (classes, found)
    masks = Compress <axis = 0> (probabilities, found)
}
"""
# put before code that must run where only numpy, OpenCV and a runtime are installed
ALONE = """
import sys

class Refuse:
    packages = 'torch torchvision mmcv mmengine mmdet mmpretrain fasternet_mm onnx PIL scipy matplotlib'.split()

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in self.packages:
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
"""


def write_exported(path: Path, masks: bool = True, drop: tuple[str, ...] = (), **metadata) -> Path:
    """Write a detector of two classes that finds the whole picture (class 1) and a part of it (class 0).

    Args:
        path (Path): .onnx, or .xml, which OpenVINO writes.
        masks (bool): Whether it gives masks: the left half of the picture's upper three quarters, and all of the part.
        drop (tuple[str, ...]): Keys of the metadata to leave out.
        **metadata: That differ from :data:`METADATA`.
    """
    onnx = pytest.importorskip('onnx')
    probabilities = np.ones((2, 28, 28), np.float32)
    probabilities[0, :, 14:] = probabilities[0, 21:] = 0
    numbers = ', '.join(map(str, probabilities.ravel().astype(int)))
    model = onnx.parser.parse_model(GRAPH.replace('{}', f'{{{numbers}}}'))
    told = METADATA | metadata
    if not masks:
        del model.graph.output[3], model.graph.node[-1]
        told = dict(task='detection') | {key: told[key] for key in told if key not in ('task', 'mask_threshold')}
    told = {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}
    told = {key: value for key, value in told.items() if key not in drop}
    for key, value in told.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    if path.suffix == '.onnx':
        onnx.save(model, path)
        return path
    openvino = pytest.importorskip('openvino')
    onnx.save(model, path.with_suffix('.onnx'))
    converted = openvino.Core().read_model(path.with_suffix('.onnx'))
    for key, value in told.items():
        converted.set_rt_info(value, ['fasternet_mm', key])
    openvino.save_model(converted, path, compress_to_fp16=False)
    path.with_suffix('.onnx').unlink()
    return path
