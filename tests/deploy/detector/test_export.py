"""A whole detector in one file: what mmdet finds in a picture, ONNX Runtime and OpenVINO find from the file alone."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector
from mmengine.registry import DefaultScope

from fasternet_mm.deploy import export_detector
from fasternet_mm.deploy.detector import pipeline
from fasternet_mm.deploy.detector.compare import batch_of
from fasternet_mm.deploy.runtime import RUNTIMES, ExportedModel
from fasternet_mm.engine.runner import build_model, load_config
from fasternet_mm.errors import UserError
from fasternet_mm.report.measure.detections import make_detections

from ...helpers import one_line
from ...helpers.detectors import finding, noise

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory) -> Path:
    """Return a folder with two pictures of different shape, on which random weights find different things."""
    folder = tmp_path_factory.mktemp('pictures')
    for number, size in enumerate([(96, 128), (150, 100)]):
        cv2.imwrite(str(folder / f'{number}.png'), noise(size, number)[0])
    return folder


@pytest.fixture(scope='module')
def mask_rcnn(tmp_path_factory, sample, pictures):
    """Return a tiny Mask R-CNN, its config, and its file of any size, with what was said while it was written."""
    from ...helpers.configs import write_tiny_config

    folder = tmp_path_factory.mktemp('mask_rcnn')
    cfg = load_config(str(write_tiny_config(folder, sample)))
    torch.manual_seed(0)
    model = build_model(cfg)
    make_detections(model, [batch_of(noise((64, 64)))])
    said = []
    export_detector(
        model, cfg, dict(producer='fasternet_mm'), folder / 'x.onnx', dynamic=True, images=pictures, say=said.append
    )
    return model, cfg, folder / 'x.onnx', said


@pytest.mark.parametrize('runtime', RUNTIMES)
@pytest.mark.parametrize('size', [(64, 64), (60, 111), (240, 90)])
def test_finds_in_a_picture_what_mmdet_finds(mask_rcnn, runtime, size):
    pytest.importorskip(runtime)
    model, cfg, file, _ = mask_rcnn
    picture = noise(size, 7)[0]
    found = ExportedModel(file, runtime)(picture)
    model.cfg = cfg
    with DefaultScope.overwrite_default_scope('mmdet'):
        wanted = inference_detector(model, picture).pred_instances
    assert len(found) == len(wanted) > 10
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, wanted.bboxes, atol=1e-5 * max(size) + 1e-3)
    assert (found.labels == wanted.labels.numpy()).all()
    assert found.masks.shape == (len(found), *size)
    assert (found.masks != wanted.masks.numpy()).mean() < 1e-3


def test_what_was_compared_is_said(mask_rcnn):
    *_, said = mask_rcnn
    assert said[0] == 'exporting the whole MaskRCNN'
    assert said[1].startswith('comparing on 4 inputs with ') and 'levels' in said[1]
    assert [line.split(':')[0] for line in said[2:4]] == ['ONNX Runtime', 'OpenVINO']
    assert 'mask pixels at a threshold' in said[2]


def test_one_file_of_standard_operators_that_says_how_to_use_it(mask_rcnn):
    _, cfg, path, _ = mask_rcnn
    file = onnx.load(path)
    assert {node.domain for node in file.graph.node} <= {''} and not file.functions
    assert [entry.domain for entry in file.opset_import] == [''] and file.opset_import[0].version >= 18
    assert sorted(one.name for one in path.parent.glob('x.onnx*')) == ['x.onnx']
    told = ExportedModel(path).metadata
    assert told['classes'] == ['circle', 'square', 'triangle'] and told['task'] == 'instance segmentation'
    assert (told['score_threshold'], told['mask_threshold'], told['shape']) == (0.05, 0.5, None)
    assert told['resize'] == dict(scale=[192, 192], keep_ratio=True)


@pytest.fixture(scope='module')
def rtmdet(tmp_path_factory, pictures):
    """Return a tiny RTMDet's file of 96 x 128 pixels."""
    model, cfg = finding('RTMDet', (96, 128))
    path = tmp_path_factory.mktemp('rtmdet') / 'x.onnx'
    cfg.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(128, 96), keep_ratio=True),
        dict(type='Pad', size=(128, 96), pad_val=dict(img=(114, 114, 114))),
        dict(type='PackDetInputs'),
    ]
    agreements = export_detector(
        model, cfg, dict(producer='fasternet_mm'), path, score_threshold=0.002, images=pictures, say=str
    )
    return path, agreements


def test_a_dense_head_at_a_fixed_size(rtmdet, pictures):
    path, agreements = rtmdet
    assert all(one.detections > 0 for one in agreements.values())
    model = ExportedModel(path)
    assert model.shape == (96, 128) and model.task == 'detection' and model.score_threshold == 0.002
    assert model.metadata['pad'] == dict(size=[128, 96], value=[114, 114, 114])
    found = model(pictures / '1.png')
    assert len(found) and found.masks is None and found.scores.min() > 0.002
    assert found.boxes[:, 2].max() <= 100 and found.boxes[:, 3].max() <= 150
    with pytest.raises(ValueError, match='from 0.002'):
        model(pictures / '1.png', score_threshold=0.001)


def test_a_file_that_finds_something_else_is_not_written(pictures, tmp_path, monkeypatch):
    model, cfg = finding('RTMDet', (96, 128))
    right = ExportedModel.run

    def wrong(self, image):
        return {name: out + 1 if name == 'boxes' else out for name, out in right(self, image).items()}

    monkeypatch.setattr(ExportedModel, 'run', wrong)
    with pytest.raises(
        UserError, match='ONNX Runtime computes something else from the file than PyTorch: the file alone'
    ):
        export_detector(
            model, cfg, dict(producer='fasternet_mm'), tmp_path / 'x.onnx', (96, 128), images=pictures, say=str
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--score-threshold', '1'], '--score-threshold must be at least 0 and below 1, but is 1.0'),
        (['--images', 'nowhere'], '--images nowhere is no folder'),
        (['--images', '.'], '--images . has no picture'),
        (['--cfg-options', 'model.test_cfg.rcnn.nms.type=soft_nms'], "model.test_cfg.rcnn.nms={'type': 'soft_nms'"),
        (
            ['--cfg-options', 'test_dataloader.dataset.pipeline.1.type=RandomFlip'],
            "test_dataloader.dataset.pipeline[1]={'type': 'RandomFlip'",
        ),
        (
            ['--cfg-options', 'test_dataloader.dataset.data_root=nowhere'],
            'so there are no pictures to check the file with',
        ),
    ],
)
def test_one_clear_line_before_tracing(run_tool, tiny_config, tmp_path, monkeypatch, arguments, message):
    config = tiny_config()
    monkeypatch.chdir(tmp_path)
    done = run_tool('export.py', config, '--what', 'detector', '--out', tmp_path / 'x.onnx', *arguments, check=False)
    assert message in one_line(done) and 'exporting' not in done.stdout


def test_settings_of_a_whole_detector_are_for_it_alone(run_tool, tiny_config, tmp_path):
    done = run_tool('export.py', tiny_config(), '--out', tmp_path / 'x.onnx', '--score-threshold', '0.1', check=False)
    assert '--score-threshold and --images are for --what detector' in one_line(done)


@pytest.mark.parametrize(
    'transforms, resize, pad',
    [
        ([dict(type='Resize', scale=(1333, 800), keep_ratio=True)], dict(scale=[1333, 800], keep_ratio=True), None),
        ([dict(type='mmdet.Resize', scale=(64, 32))], dict(scale=[64, 32], keep_ratio=False), None),
        ([dict(type='Pad', size=(640, 640), pad_val=114)], None, dict(size=[640, 640], value=[114] * 3)),
        ([dict(type='LoadAnnotations', with_bbox=True)], None, None),
    ],
)
def test_what_a_test_pipeline_does_with_sizes(transforms, resize, pad):
    given = [dict(type='LoadImageFromFile', backend_args=None), *transforms, dict(type='PackDetInputs', meta_keys=())]
    assert pipeline.resizing(given) == (resize, pad or dict(size=None, value=[0, 0, 0]))


def test_metadata_are_plain_text_or_json(mask_rcnn):
    for entry in onnx.load(mask_rcnn[2]).metadata_props:
        if entry.key not in ('task', 'producer', 'input', 'channels', 'config', 'checkpoint'):
            json.loads(entry.value)
