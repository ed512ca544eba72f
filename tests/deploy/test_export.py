"""One ONNX file, checked, or one clear line."""

import json
import math

import numpy as np
import pytest
import torch

from fasternet_mm import FasterNet
from fasternet_mm.deploy import openvino_session, switch_to_deploy, to_onnx
from fasternet_mm.deploy.onnx import relative_difference
from fasternet_mm.engine.runner import load_config
from fasternet_mm.errors import UserError
from fasternet_mm.report import from_config
from tests.helpers import REPO, one_line, relative_error
from tests.helpers.networks import settled

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


def outputs_of(path, images: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(str(path))
    return [torch.from_numpy(out) for out in session.run(None, {'images': images.numpy()})]


def test_a_classifier_of_any_batch_and_size(run_tool, tiny_classifier_config, tmp_path):
    subject = from_config(load_config(str(tiny_classifier_config)), str(tiny_classifier_config), None)
    model, checkpoint, out = settled(subject.model), tmp_path / 'weights.pth', tmp_path / 'model.onnx'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    done = run_tool('export.py', tiny_classifier_config, '--out', out, '--shape', '64', '64', '--dynamic', checkpoint)
    assert 'ONNX Runtime: off PyTorch by at most' in done.stdout and not list(tmp_path.glob('*.partial'))
    for shape in [(1, 3, 64, 64), (3, 3, 100, 72)]:
        images = torch.randn(shape)
        with torch.no_grad():
            assert relative_error(outputs_of(out, images), [model(images)]) < 1e-4
    file = onnx.load(out)
    onnx.checker.check_model(file, full_check=True)
    assert file.opset_import[0].version >= 17
    operators = [node.op_type for node in file.graph.node]
    assert 'BatchNormalization' not in operators
    told = {entry.key: entry.value for entry in file.metadata_props}
    assert json.loads(told['mean']) == pytest.approx([123.675, 116.28, 103.53]) and told['channels'] == 'RGB'
    assert told['config'] == str(tiny_classifier_config) and len(told['checkpoint_sha256']) == 64
    done = run_tool('export.py', tiny_classifier_config, '--out', out, check=False)
    assert f'--out {out} exists; remove it or choose another name' in one_line(done)


def test_a_file_is_hardly_larger_than_its_parameters(run_tool, tmp_path):
    config, out = REPO / 'configs' / 'fasternet_t0_in1k.py', tmp_path / 'model.onnx'
    run_tool('export.py', config, '--out', out, '--shape', '64', '64')
    model = from_config(load_config(str(config)), str(config), None).model
    assert out.stat().st_size <= 1.05 * 4 * sum(parameter.numel() for parameter in model.parameters())
    assert [path.name for path in tmp_path.iterdir()] == ['model.onnx']


@pytest.mark.parametrize(
    ('part', 'names'), [('backbone', ['c2', 'c3', 'c4', 'c5']), (None, ['p2', 'p3', 'p4', 'p5', 'p6'])]
)
@pytest.mark.parametrize('dynamic', [False, True])
def test_backbone_and_neck_of_a_detector(run_tool, tiny_config, tmp_path, part, names, dynamic):
    config, out = tiny_config(), tmp_path / 'features.onnx'
    arguments = [*(['--what', part] if part else []), *(['--dynamic'] if dynamic else [])]
    run_tool('export.py', config, '--out', out, '--shape', '64', '96', *arguments)
    session = onnxruntime.InferenceSession(str(out))
    assert [output.name for output in session.get_outputs()] == names
    shape = (2, 3, 128, 64) if dynamic else (1, 3, 64, 96)
    found = session.run(None, {'images': np.zeros(shape, np.float32)})
    assert [shape[2] // out.shape[2] for out in found][:4] == [4, 8, 16, 32]


def test_a_trained_detectors_backbone_and_the_levels_of_its_neck(tiny_config, tmp_path):
    """The backbone alone keeps its output norms; levels are named after the backbone's outputs."""
    from fasternet_mm.deploy import export_onnx

    neck = {'model.neck.in_channels': [16, 32, 64], 'model.backbone.out_indices': (1, 2, 3)}
    subject = from_config(load_config(str(tiny_config()), neck), 'x.py', None)
    model, out = settled(subject.model), tmp_path / 'x.onnx'
    for part, names in (('backbone', ['c3', 'c4', 'c5']), ('backbone+neck', ['p3', 'p4', 'p5', 'p6', 'p7'])):
        differences = export_onnx(model, subject.cfg, 'x.py', None, out, part, (64, 96), say=str)
        assert max(differences.values()) < 1e-4
        assert [output.name for output in onnxruntime.InferenceSession(str(out)).get_outputs()] == names


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_openvino_computes_the_same(tiny, precision):
    pytest.importorskip('openvino')
    trained, images = settled(FasterNet(**tiny)), torch.randn(1, 3, 64, 64)
    file = to_onnx(switch_to_deploy(trained), images, ['c2', 'c3', 'c4', 'c5'])
    with torch.no_grad():
        error = relative_error(openvino_session(file, precision)(images), trained(images))
    assert error < (1e-4 if precision == 'fp32' else 3e-2)


def test_a_runtime_that_computes_something_else_writes_nothing(tiny_classifier_config, tmp_path, monkeypatch):
    from fasternet_mm.deploy import export_onnx

    subject = from_config(load_config(str(tiny_classifier_config)), str(tiny_classifier_config), None)
    wrong = lambda file: lambda images: [torch.zeros(len(images), 1000)]  # noqa: E731
    monkeypatch.setattr('fasternet_mm.deploy.export.onnxruntime_session', wrong)
    with pytest.raises(UserError, match='ONNX Runtime computes something else from the file than PyTorch: 1 relative'):
        export_onnx(
            settled(subject.model), subject.cfg, 'x.py', None, tmp_path / 'x.onnx', 'classifier', (64, 64), say=str
        )
    assert not (tmp_path / 'x.onnx').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--shape', '8', '8'], '--shape must be at least 32, but is 8 8'),
        (['nowhere.pth'], 'checkpoint not found: nowhere.pth'),
        (['--out', '/proc/nowhere/x.onnx'], '--out /proc/nowhere/x.onnx is not writable'),
        (['--what', 'backbone+neck'], '--what backbone+neck: ImageClassifier has no such part that can be exported'),
    ],
)
def test_one_clear_line(run_tool, tiny_classifier_config, tmp_path, arguments, message):
    where = [] if '--out' in arguments else ['--out', tmp_path / 'x.onnx']
    done = run_tool('export.py', tiny_classifier_config, *arguments, *where, check=False)
    assert message in one_line(done)


def test_a_map_that_is_nan_is_not_equal():
    ones, nan = torch.ones(2), torch.full((2,), torch.nan)
    assert math.isnan(relative_difference([ones, nan, ones], [ones, ones, ones]))
    assert relative_difference([ones, 3 * ones], [ones, 2 * ones]) == pytest.approx(0.5)


def test_a_package_that_is_missing(monkeypatch, tiny):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"onnx is not installed: pip install 'fasternet_mm\[onnx\]'"):
        to_onnx(FasterNet(**tiny).eval(), torch.zeros(1, 3, 64, 64), ['a'])
