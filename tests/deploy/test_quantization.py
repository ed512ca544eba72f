"""Exported files in int8: what becomes int8, what must not, and what is written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from fasternet_mm.deploy.likeness import difference, match
from fasternet_mm.errors import UserError
from tests.faults.runs import full_disk
from tests.helpers.convolving import write_convolving
from tests.helpers.exported import METADATA

pytest.importorskip('onnx')
openvino = pytest.importorskip('openvino')
pytest.importorskip('nncf')

from fasternet_mm.deploy.quantization import (  # noqa: E402
    by_damage,
    layers_of,
    metadata_of,
    quantize,
    quantize_file,
    read,
    run_in_openvino,
    write,
)

LAYERS = ['stem', 'branch', 'deltas', 'logits']


@pytest.fixture(scope='module')
def file(tmp_path_factory) -> Path:
    return write_convolving(tmp_path_factory.mktemp('detector') / 'model.onnx')


def image(seed: int, brightest: int = 256) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, brightest, (1, 48, 64, 3), np.uint8)


@pytest.fixture(scope='module')
def inputs() -> list[np.ndarray]:
    """Three with a detection, and one without."""
    return [image(0), image(1), image(2, brightest=20), image(3)]


@pytest.fixture(scope='module')
def quantized(file, inputs):
    return quantize(file, inputs)


def test_convolutions_become_int8_and_boxes_are_computed_in_floating_point(file, quantized):
    assert layers_of(read(file)) == LAYERS
    into_8_bits = {
        target.get_node().get_friendly_name()
        for op in quantized.get_ops()
        if op.get_type_name() == 'FakeQuantize'
        for target in op.output(0).get_target_inputs()
    }
    into_8_bits -= {name for name in into_8_bits if name.startswith('ShapeOf')}
    # the residual sum lies between layers; normalisation, and all that makes a box, does not
    assert {'stem', 'branch', 'sum', 'deltas', 'logits'} == into_8_bits
    constants = [op for op in quantized.get_ops() if op.get_type_name() == 'Constant']
    assert sum(op.get_element_type() == openvino.Type.i8 for op in constants) == len(LAYERS)


@pytest.mark.parametrize('seed', [0, 7])
def test_an_image_without_rois_does_no_harm(file, quantized, seed):
    """It has no largest value: a mean over images would lose the others'."""
    want, got = (run_in_openvino(model)(image(seed)) for model in (read(file), quantized))
    np.testing.assert_allclose(got['boxes'], want['boxes'], atol=0.5)
    assert np.abs(got['masks'] - want['masks']).max() < 0.05 < want['masks'].std() * 2
    dark = run_in_openvino(quantized)(image(seed, brightest=20))
    assert dark['boxes'].shape == (0, 4) and dark['masks'].shape == (0, 7, 7)


def test_nothing_found_in_any_image_is_an_error(file):
    with pytest.raises(UserError, match='nothing came to .* in 2 images, as where nothing is detected'):
        quantize(file, [image(0, brightest=20), image(1, brightest=20)])


def test_layers_that_are_kept_stay_in_floating_point(file, inputs):
    constants = [op for op in quantize(file, inputs, LAYERS[1:]).get_ops() if op.get_type_name() == 'Constant']
    assert sum(op.get_element_type() == openvino.Type.i8 for op in constants) == 1


def test_parts_are_ranked_by_what_they_change(file, quantized, inputs):
    ranked = by_damage(file, quantized, inputs)
    assert sorted(layer for _, part in ranked for layer in part) == sorted(LAYERS)
    left = [each for each, _ in ranked]
    whole = np.mean([difference(run_in_openvino(quantized)(one), run_in_openvino(read(file))(one)) for one in inputs])
    assert left == sorted(left) and left[0] < whole


def detections(boxes, labels, scores=None, masks=None) -> dict:
    scores = np.full(len(boxes), 0.5) if scores is None else np.array(scores)
    found = dict(boxes=np.array(boxes, np.float32).reshape(-1, 4), labels=np.array(labels, int), scores=scores)
    return found if masks is None else dict(found, masks=np.array(masks, np.float32))


def test_detections_are_matched_by_class_and_overlap():
    want = detections([[0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 60, 60]], [0, 1, 2])
    got = detections([[21, 20, 41, 40], [0, 0, 10, 10], [0, 1, 10, 10], [50, 50, 60, 60]], [1, 0, 0, 1])
    assert [(i, j) for i, j, _ in match(got, want)] == [(1, 0), (0, 1)]
    overlaps = box_iou(torch.tensor(got['boxes']), torch.tensor(want['boxes']))
    assert [iou for *_, iou in match(got, want)] == pytest.approx([overlaps[1, 0].item(), overlaps[0, 1].item()])
    # two of three, one of them to an IoU of 0.905, and two more that are not there
    assert difference(got, want) == pytest.approx(1 - (0.5 + 0.5 * overlaps[0, 1].item()) / (1.5 + 1), abs=1e-6)


def test_equal_outputs_do_not_differ():
    none = detections([], [])
    one = detections([[0, 0, 10, 10]], [0], masks=np.ones((1, 2, 2)))
    assert difference(none, none) == 0 == difference(one, one)
    assert difference(none, detections([[0, 0, 9, 9]], [0])) == 1 == difference(detections([[0, 0, 9, 9]], [0]), none)
    assert difference(detections([[0, 0, 10, 10]], [0], masks=[[[1, 1], [0, 1]]]), one) == pytest.approx(0.25)
    feature = dict(c2=np.ones(4), c3=np.ones(4))
    assert difference(dict(c2=np.ones(4), c3=np.full(4, 1.5)), feature) == pytest.approx(0.5)


# what is written


def accuracy_of(losses: list[float]):
    """A measurement that finds 0.5, and less by the next of these losses for each file of int8."""
    left = iter(losses)
    return lambda path: {'coco/segm_mAP': 0.5 - (next(left) if path.suffix == '.xml' else 0), 'coco/bbox_mAP': 0.9}


def test_accuracy_before_and_after_is_in_the_file(file, inputs, tmp_path):
    told, out = [], tmp_path / 'model.xml'
    quantize_file(file, out, inputs, accuracy_of([0.01]), say=told.append)
    assert told == [
        f'{file}: coco/segm_mAP 0.5, coco/bbox_mAP 0.9',
        'calibrating on 4 images',
        'int8, 0 of 4 layers in floating point: coco/segm_mAP 0.49, coco/bbox_mAP 0.9',
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['model.bin', 'model.xml']
    metadata = metadata_of(read(out))
    assert {key: metadata[key] for key in METADATA} == metadata_of(read(file))
    facts = json.loads(metadata['int8'])
    assert facts['images'] == 4 and facts['floating_point'] == [] and facts['nncf'] and facts['processor']
    assert facts['accuracy']['before']['coco/segm_mAP'] == 0.5 and facts['accuracy']['after']['coco/segm_mAP'] == 0.49


def test_sensitive_layers_stay_in_floating_point_until_the_loss_is_small_enough(file, inputs, tmp_path):
    facts = quantize_file(file, tmp_path / 'a.xml', inputs, accuracy_of([0.02, 0.01, 0.004]), 0.5, say=str)
    assert len(facts['floating_point']) == 2 and set(facts['floating_point']) < set(LAYERS)
    i8 = [op for op in read(tmp_path / 'a.xml').get_ops() if op.get_type_name() == 'Constant']
    assert sum(op.get_element_type() == openvino.Type.i8 for op in i8) == 2


def test_as_much_as_is_allowed_may_be_lost(file, inputs, tmp_path):
    assert 0.416 * 100 - 0.411 * 100 > 0.5
    measure = lambda path: {'coco/segm_mAP': 0.411 if path.suffix == '.xml' else 0.416}  # noqa: E731
    assert quantize_file(file, tmp_path / 'a.xml', inputs, measure, 0.5, say=str)['floating_point'] == []


def test_what_loses_too_much_is_not_written(file, inputs, tmp_path):
    with pytest.raises(UserError, match=r'coco/segm_mAP drops by 2.00 points .* more than --max-drop 0.5: .* not writ'):
        quantize_file(file, tmp_path / 'a.xml', inputs, accuracy_of([0.02] * 9), 0.5, say=str)
    assert not list(tmp_path.iterdir())


def test_without_an_evaluator_the_file_says_so(file, inputs, tmp_path):
    told = []
    quantize_file(file, tmp_path / 'a.xml', inputs, say=told.append)
    assert told[-1].startswith('accuracy not measured; 3 of 3 detections found again, 0 new ones, likeness 0.9')
    facts = json.loads(metadata_of(read(tmp_path / 'a.xml'))['int8'])
    assert facts['accuracy'] == 'accuracy not measured'


@pytest.mark.parametrize('size', [100, 100_000])  # less than the .xml; less than the .bin
def test_a_full_disk_leaves_nothing(tmp_path, size):
    weights = openvino.opset13.constant(np.zeros(100_000, np.float32))
    model = openvino.Model([openvino.opset13.relu(weights)], [])
    with full_disk(size), pytest.raises(UserError, match='model.xml cannot be written whole, as where a disk is full'):
        write(model, tmp_path / 'a.xml', {})
    assert not list(tmp_path.iterdir())


def test_half_a_file_never_stands_in_for_a_whole_one(quantized, tmp_path, monkeypatch):
    def save(model, path, **settings):
        Path(path).write_text('<net')
        raise KeyboardInterrupt

    monkeypatch.setattr(openvino, 'save_model', save)
    with pytest.raises(KeyboardInterrupt):
        write(quantized, tmp_path / 'a.xml', {})
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_onnx(tmp_path):
    (tmp_path / 'a.onnx').write_text('no')
    with pytest.raises(UserError, match='a.onnx cannot be read by OpenVINO; expected an ONNX file'):
        read(tmp_path / 'a.onnx')
