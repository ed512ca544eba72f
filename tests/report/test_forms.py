"""Every form of a model in one table: its file, its accuracy, and what it finds beside eager fp32."""

import numpy as np
import pytest
import torch

from fasternet_mm.engine.runner import build_model, load_config
from fasternet_mm.errors import UserError
from fasternet_mm.report import Options, Reporter, from_config, new_report
from fasternet_mm.report.measure import exported
from fasternet_mm.report.measure.detections import agreement
from fasternet_mm.report.measure.exported import require_runtime
from fasternet_mm.report.measure.modes import UnsupportedModeError
from fasternet_mm.report.render.markdown import markdown
from fasternet_mm.report.render.pictures import pictures
from fasternet_mm.report.schema import Agreement, Evaluation
from tests.helpers import REPO
from tests.helpers.exported import write_exported

from .made_up import made_up_report, measurement
from .measuring import CPU, FAST


def images(*boxes) -> list[dict]:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
    return [dict(boxes=boxes, scores=scores, labels=np.zeros(len(boxes), np.int64))]


def test_detections_are_matched():
    wanted = images([0, 0, 10, 10], [20, 20, 40, 40])
    assert agreement(wanted, wanted) == Agreement(2, 2, 2, 0.0, 0.0)
    found = agreement(images([0, 0, 10, 12]), wanted)
    assert (found.wanted, found.found, found.matched, found.box) == (2, 1, 1, 2.0)
    assert found.off == pytest.approx(1 / 3)
    assert agreement(images(), images()).off == 0


def test_what_a_runtime_cannot_do_is_one_line(monkeypatch):
    require_runtime('eager', 'bf16', CPU, 'detector')
    with pytest.raises(UnsupportedModeError, match='mode openvino fp16|mode openvino is for --device cpu in fp32'):
        require_runtime('openvino', 'fp16', CPU, 'detector')
    with pytest.raises(UnsupportedModeError, match='mode openvino is for --device cpu'):
        require_runtime('openvino', 'fp32', torch.device('cuda'), 'detector')
    monkeypatch.setattr(exported, '_has_bf16', lambda: False)
    with pytest.raises(UnsupportedModeError, match='this processor has no bf16, and openvino would compute in fp32'):
        require_runtime('openvino', 'bf16', CPU, 'detector')

    def missing(*names):
        raise UserError(f'{names[-1]} is not installed: pip install {names[-1]}')

    monkeypatch.setattr(exported, 'require_packages', missing)
    with pytest.raises(UnsupportedModeError, match='mode openvino int8: nncf is not installed: pip install nncf'):
        require_runtime('openvino', 'int8', CPU, 'detector')


def test_int8_is_for_the_modes_that_read_files_of_it():
    ways = Options(CPU, modes=['eager', 'onnxruntime', 'openvino'], dtypes=['fp32', 'int8']).ways
    assert [way for way in ways if 'int8' in way] == [('openvino', 'int8')] and len(ways) == 4
    with pytest.raises(UserError, match='--dtype int8 is for --mode openvino, but the modes are eager, deploy'):
        Options(CPU, modes=['eager', 'deploy'], dtypes=['int8'])


def test_a_whole_detector_from_its_file(trained_detector, tmp_path, monkeypatch):
    """The file is one that finds something else: it is measured only where that is accepted."""
    pytest.importorskip('onnxruntime')
    config, checkpoint = map(str, trained_detector)
    written = []

    def export(model, cfg, metadata, out, dynamic, images, say, compared):
        assert dynamic and compared
        written.append((sorted(path.name for path in images.iterdir()), metadata['checkpoint']))
        out.parent.mkdir()
        write_exported(out, classes=list(cfg.metainfo['classes']), resize=None)

    monkeypatch.setattr(exported, 'export_detector', export)
    subject = from_config(load_config(config), config, checkpoint)
    for accepted in (0.01, 2.0):
        monkeypatch.setattr('fasternet_mm.report.measure.case._OTHERS', dict(fp32=accepted))
        options = Options(CPU, modes=['eager', 'onnxruntime'], scopes=['detector'], limits=FAST)
        reporter = Reporter(new_report(options, []), options, lambda report: None, str)
        reporter.run([subject], tmp_path / str(accepted))
        eager, row = reporter.report.models[0].measurements
        assert eager.error is None and eager.agreement is eager.file_size is eager.evaluation is None
        if accepted < 1:
            assert row.error.startswith(
                'onnxruntime fp32 is wrong: its share of detections that are not those of eager'
            )
    names, stored = written[0]
    assert len(names) == 4 and stored == checkpoint
    file = tmp_path / '2.0' / 'files' / f'{subject.name}.onnx'
    assert row.error is None and row.latency_ms and row.file_size == file.stat().st_size
    assert row.evaluation.error is None and row.evaluation.images == 4
    assert 0 <= row.evaluation.metrics['coco/segm_mAP'] < 0.2
    assert row.agreement.found == sum(1 for _ in range(4)) * row.detections


def test_a_classifiers_forms_have_an_accuracy(tmp_path, image_folder):
    for package in ('openvino', 'nncf'):
        pytest.importorskip(package)
    config, checkpoint = tmp_path / 'small.py', tmp_path / 'small.pth'
    config.write_text(
        f'_base_ = {str(REPO / "configs" / "fasternet_t0_in1k.py")!r}\n'
        'small = [_base_.load_image, dict(type="Resize", scale=(64, 64)), _base_.pack]\n'
        f'images = dict(_delete_=True, type="CustomDataset", data_root={str(image_folder)!r}, pipeline=small)\n'
        'loader = dict(num_workers=0, persistent_workers=False)\n'
        'train_dataloader = dict(dataset=dict(data_prefix="train", **images), **loader)\n'
        'val_dataloader = dict(dataset=dict(data_prefix="val", **images), **loader)\n'
        'test_dataloader, val_evaluator = val_dataloader, dict(topk=1)\n'
        'test_evaluator = val_evaluator\n'
        'model = dict(backbone=dict(arch=dict(_delete_=True, embed_dims=8, depths=(1, 1, 1, 1))), train_cfg=None,\n'
        '             head=dict(in_channels=64, hidden_channels=16, num_classes=3))\n'
    )
    cfg = load_config(str(config))
    torch.save(dict(state_dict=build_model(cfg).state_dict()), checkpoint)
    subject = from_config(cfg, str(config), str(checkpoint))
    asked = dict(modes=['eager', 'openvino'], dtypes=['fp32', 'int8'], scopes=['classifier'], batch_sizes=[2])
    options = Options(CPU, (64, 64), limits=FAST, **asked)
    reporter = Reporter(new_report(options, []), options, lambda report: None, str)
    reporter.run([subject], tmp_path / 'out')
    (model,) = reporter.report.models
    assert [(row.mode, row.dtype, row.error) for row in model.measurements] == [
        ('eager', 'fp32', None), ('openvino', 'fp32', None), ('openvino', 'int8', None)
    ]  # fmt: skip
    eager, same, smaller = model.measurements
    assert eager.evaluation is None and model.evaluation.images == same.evaluation.images == 12
    assert same.evaluation.metrics == pytest.approx(model.evaluation.metrics)
    assert smaller.evaluation.error is None and smaller.file_size
    assert same.difference < 1e-5 < smaller.difference


def test_each_form_has_a_point_and_an_accuracy():
    report = made_up_report()
    model = report.models[1]
    labels = ['accuracy on 16 images only']
    model.measurements.append(
        measurement('detector', 'openvino', 9, file_size=13_800_000, detections=10.12,
                    agreement=Agreement(81, 80, 78, 11.0, 0.13),
                    evaluation=Evaluation({'coco/bbox_mAP': 0.248}, 16, 'made/up.json', labels))
    )  # fmt: skip
    (row,) = [line for line in markdown(report).splitlines() if '| openvino |' in line]
    assert '78 of 81, 11 px, 1.3e-01 | 13.8 |' in row and '| 24.8 ' in row and '| 10.12 |' in row
    assert pictures(report)['accuracy_over_latency.png']
