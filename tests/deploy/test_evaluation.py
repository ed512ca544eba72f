"""The accuracy of an exported file is what the config's evaluator says of its outputs."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from fasternet_mm.deploy.evaluation import ExportedFile, Inputs, evaluate_classifier, evaluate_detector
from fasternet_mm.deploy.quantization import headline
from fasternet_mm.deploy.runtime import Detections
from fasternet_mm.engine.runner import load_config
from fasternet_mm.errors import UserError
from tests.helpers import CLASSES, REPO


class Annotated:
    """Finds in each picture what it is annotated with."""

    classes = ('circle', 'square', 'triangle')

    def __init__(self, file: Path, shift: int = 0) -> None:
        self.coco, self.shift = COCO(file), shift
        self.images = {image['file_name']: image['id'] for image in self.coco.dataset['images']}

    def __call__(self, picture: str) -> Detections:
        found = self.coco.imgToAnns[self.images[Path(picture).name]]
        x, y, width, height = np.array([one['bbox'] for one in found], np.float32).T
        masks = np.stack([self.coco.annToMask(one).astype(bool) for one in found])
        labels = np.array([one['category_id'] - 1 for one in found])
        boxes = np.stack([x, y, x + width, y + height], 1)
        return Detections(boxes, np.ones(len(found), np.float32), labels, (), np.roll(masks, self.shift, 2))


def test_a_detector_that_finds_what_is_annotated(tiny_config, sample):
    cfg, annotations = load_config(str(tiny_config())), sample / 'annotations' / 'instances_val.json'
    metrics = evaluate_detector(Annotated(annotations), cfg)
    assert metrics['coco/bbox_mAP'] == metrics['coco/segm_mAP'] == 1 and headline(metrics) == ('coco/segm_mAP', 100)
    metrics = evaluate_detector(Annotated(annotations, shift=4), cfg)
    assert metrics['coco/bbox_mAP'] == 1 > 0.9 > metrics['coco/segm_mAP']


def test_a_detector_of_other_classes(tiny_config, sample):
    exported = Annotated(sample / 'annotations' / 'instances_val.json')
    exported.classes = ('cat', 'circle', 'square', 'triangle')
    with pytest.raises(UserError, match=r"file's classes are 4 \(cat, .*, \.\.\.\), the test data's 3 \(circle, "):
        evaluate_detector(exported, load_config(str(tiny_config())))


@pytest.mark.parametrize(('channels', 'accuracy'), [('RGB', 100), ('BGR', 100 / 3)])
def test_a_classifier_gets_normalized_pixels_in_its_order(tmp_path, image_folder, channels, accuracy):
    (tmp_path / 'x.py').write_text(folder_config(image_folder))
    metadata, seen = dict(channels=channels, mean=json.dumps([1, 2, 3]), std=json.dumps([2, 2, 2])), []

    def brightest(images: torch.Tensor) -> list[torch.Tensor]:
        seen.append(images)
        assert images.shape == (1, 3, 224, 224) and images.dtype == torch.float32
        return [images.mean((2, 3)).flip(1)]  # of red, green, blue to the classes blue, green, red

    assert CLASSES == ('blue', 'green', 'red')
    metrics = evaluate_classifier(brightest, metadata, load_config(str(tmp_path / 'x.py')))
    assert headline(metrics) == ('accuracy/top1', pytest.approx(accuracy, abs=1e-3)) and len(seen) == 12
    assert max(float(images.max()) for images in seen) <= (255 - 1) / 2
    assert min(float(images.min()) for images in seen) < 0


def folder_config(image_folder: Path) -> str:
    return (
        f'_base_ = {str(REPO / "configs" / "fasternet_t0_in1k.py")!r}\n'
        f"images = dict(_delete_=True, type='CustomDataset', data_root={str(image_folder)!r})\n"
        'test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(\n'
        "    data_prefix='val', pipeline=_base_.test_pipeline, **images))\n"
        'test_evaluator = dict(topk=1)\n'
    )


GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
backbone (float[1,3,{0},{1}] images) => (float[1,3,{0},{1}] c2) {{ c2 = Relu (images) }}
"""


@pytest.mark.parametrize(('sides', 'want'), [((64, 96), (64, 96)), (('H', 'W'), (96, 160))])
def test_a_backbones_inputs_fill_its_size_or_multiples_of_32(tiny_config, tmp_path, sides, want):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('openvino')
    model = onnx.parser.parse_model(GRAPH.format(*sides))
    for key, value in dict(producer='fasternet_mm 0', mean='[10, 20, 30]', std='[2, 2, 2]', channels='RGB').items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, tmp_path / 'x.onnx')
    cv2.imwrite(str(tmp_path / 'x.png'), np.full((80, 150, 3), (40, 30, 20), np.uint8))
    file = ExportedFile(tmp_path / 'x.onnx')
    (image,) = file.picture_inputs([tmp_path / 'x.png'])
    assert file.kind == 'features' and image.shape == (1, 3, *want) and image.dtype == np.float32
    inside = image[:, :, : round(80 * 96 / 150) if file.shape else 80, : 96 if file.shape else 150]
    assert (inside == 5).all() and image.sum() == inside.sum()  # (20 - 10) / 2 of red, and the others alike
    inputs = file.training_inputs(load_config(str(tiny_config())), 3)  # resized to 192 x 192
    assert [image.shape for image in inputs] == [(1, 3, 64, 96) if file.shape else (1, 3, 192, 192)] * 3


def test_the_metric_that_counts():
    coco = {'coco/bbox_mAP_50': 0.9, 'coco/bbox_mAP': 0.5}
    assert headline(coco) == ('coco/bbox_mAP', 50) and headline(dict(coco, **{'coco/segm_mAP': 0.4}))[1] == 40
    assert headline({'accuracy/top5': 90.0, 'accuracy/top1': 71.9}) == ('accuracy/top1', 71.9)
    assert headline({'pascal_voc/mAP': 0.5, 'pascal_voc/AP50': 0.5}) == ('pascal_voc/mAP', 50)
    with pytest.raises(UserError, match='test_evaluator gives loss; expected one of segm_mAP, bbox_mAP, mAP, top1'):
        headline(dict(loss=1.0))


def test_inputs_are_made_one_at_a_time():
    made = []
    inputs = Inputs('abc', lambda source: made.append(source) or source.upper())
    assert len(inputs) == 3 and len(inputs[1:]) == 2 and not made
    assert inputs[1:][0] == 'B' and list(inputs) == ['A', 'B', 'C'] and made == ['b', 'a', 'b', 'c']
