"""The command line that quantizes: accuracy before and after, and one line for each wrong input."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from fasternet_mm.deploy.runtime import ExportedModel
from tests.helpers import CLASSES, REPO, one_line
from tests.helpers.convolving import write_convolving

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')
openvino = pytest.importorskip('openvino')
pytest.importorskip('nncf')


@pytest.fixture(scope='module')
def config(tmp_path_factory, image_folder) -> Path:
    """A tiny classifier of the three colours of the folder."""
    path = tmp_path_factory.mktemp('config') / 'classifier.py'
    loader = "dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(data_prefix='{}', **images))"
    path.write_text(
        f'_base_ = {str(REPO / "configs" / "fasternet_t0_in1k.py")!r}\n'
        'small = [_base_.load_image, dict(type="Resize", scale=(64, 64)), _base_.pack]\n'
        f"images = dict(_delete_=True, type='CustomDataset', data_root={str(image_folder)!r}, pipeline=small)\n"
        f'train_dataloader = {loader.format("train")}\n'
        f'val_dataloader = {loader.format("val")}\n'
        'test_dataloader = val_dataloader\n'
        'val_evaluator = dict(topk=1)\n'
        'test_evaluator = val_evaluator\n'
        'model = dict(backbone=dict(arch=dict(_delete_=True, embed_dims=8, depths=(1, 1, 1, 1))), train_cfg=None,\n'
        f'             head=dict(in_channels=64, hidden_channels=16, num_classes={len(CLASSES)}))\n'
    )
    return path


@pytest.fixture(scope='module')
def files(tmp_path_factory, run_tool, config) -> dict[str, Path]:
    """A classifier of 64 x 64 pixels, and its backbone of any size."""
    folder = tmp_path_factory.mktemp('files')
    run_tool('export.py', config, '--out', folder / 'classifier.onnx', '--shape', 64, 64)
    run_tool(
        'export.py', config, '--out', folder / 'backbone.onnx', '--shape', 64, 64, '--dynamic', '--what', 'backbone'
    )
    return {kind: folder / f'{kind}.onnx' for kind in ('classifier', 'backbone')}


def metadata_of(path: Path) -> dict:
    return openvino.Core().read_model(path).get_rt_info(['fasternet_mm']).value


def test_a_classifier_before_and_after(run_tool, files, config, tmp_path):
    out = tmp_path / 'int8' / 'model.xml'
    done = run_tool('quantize.py', files['classifier'], '--config', config, '--out', out, '--num-images', 6)
    before, after = re.findall(r'accuracy/top1 ([\d.]+)', done.stdout)
    assert 'calibrating on 6 images' in done.stdout and re.search(r'peak memory \d+\.\d GB', done.stdout)
    told = metadata_of(out)
    facts = json.loads(told['int8'])
    assert told['config'] == str(config) and told['channels'] == 'RGB' and facts['images'] == 6
    accuracy = [facts['accuracy'][side]['accuracy/top1'] for side in ('before', 'after')]
    assert accuracy == [pytest.approx(float(value), abs=0.01) for value in (before, after)]
    assert sorted(path.name for path in out.parent.iterdir()) == ['model.bin', 'model.xml']
    assert out.with_suffix('.bin').stat().st_size < 0.5 * files['classifier'].stat().st_size
    (image,) = np.random.RandomState(0).randn(1, 1, 3, 64, 64).astype(np.float32)
    core = openvino.Core()
    want, got = (core.compile_model(path, 'CPU')(image)['logits'] for path in (files['classifier'], out))
    assert 0 < np.linalg.norm(got - want) / np.linalg.norm(want) < 0.2


def test_a_detector_before_and_after(run_tool, tiny_config, tmp_path):
    file = write_convolving(tmp_path / 'a.onnx', classes=['circle', 'square', 'triangle'])
    options = ['--out', tmp_path / 'a.xml', '--num-images', 4, '--max-drop', 0.5]
    done = run_tool('quantize.py', file, '--config', tiny_config(), *options)
    assert len(re.findall(r'coco/bbox_mAP [\d.]+, coco/segm_mAP [\d.]+\n', done.stdout)) == 2
    assert ExportedModel(tmp_path / 'a.xml')(np.full((48, 64, 3), 200, np.uint8)).masks.shape == (1, 48, 64)
    assert set(json.loads(metadata_of(tmp_path / 'a.xml')['int8'])['accuracy']) == {'before', 'after'}


def test_a_backbone_on_pictures_alone(run_tool, files, image_folder, tmp_path):
    out = tmp_path / 'model.xml'
    done = run_tool('quantize.py', files['backbone'], '--images', image_folder / 'train' / 'red', '--out', out)
    assert re.search(r'accuracy not measured; outputs off by 0\.0\d+ relative', done.stdout)
    facts = json.loads(metadata_of(out)['int8'])
    assert facts['accuracy'] == 'accuracy not measured' and facts['images'] == 4
    done = run_tool('quantize.py', files['backbone'], '--images', image_folder, '--out', out, check=False)
    assert one_line(done).endswith('model.xml exists; remove it or choose another name')


@pytest.mark.parametrize(
    ('kind', 'options', 'message'),
    [
        ('classifier', ['--images', 'nowhere'], '--images nowhere has no picture'),
        ('classifier', ['--config', 'nowhere.py'], 'config not found: nowhere.py'),
        ('classifier', ['--config', 'CONFIG', '--num-images', '0'], '--num-images must be at least 1, but is 0'),
        ('classifier', ['--config', 'CONFIG', '--max-drop', '-1'], '--max-drop must be at least 0, but is -1.0'),
        ('classifier', ['--config', 'CONFIG', '--max-drop', 'nan'], '--max-drop must be at least 0, but is nan'),
        ('classifier', ['--images', 'x', '--max-drop', '1'], '--max-drop and --cfg-options need --config'),
        ('classifier', ['--config', 'CONFIG', '--out', 'x.onnx'], '--out x.onnx must end with .xml'),
        ('classifier', ['--config', 'CONFIG', '--out', '/proc/x.xml'], '--out /proc/x.xml is not writable'),
        ('classifier', ['--config', 'DETECTOR'], 'classifier.onnx is a classifier, but '),
        ('backbone', ['--config', 'CONFIG', '--max-drop', '1'], 'backbone.onnx is no whole network, so that no accur'),
        (
            'classifier',
            ['--config', 'CONFIG', '--cfg-options', 'test_dataloader.dataset.pipeline.1.scale=(32,32)'],
            'classifier.onnx takes images of 64 x 64, but the test pipeline gives 32 x 32',
        ),
        (
            'classifier',
            ['--config', 'CONFIG', '--cfg-options', 'train_dataloader.dataset.data_root=nowhere'],
            'dataset not found: nowhere',
        ),
    ],
)  # fmt: skip
def test_one_clear_line(run_tool, files, config, tiny_config, tmp_path, kind, options, message):
    options = [dict(CONFIG=config, DETECTOR=tiny_config()).get(option, option) for option in options]
    out = [] if '--out' in options else ['--out', tmp_path / 'x.xml']
    done = run_tool('quantize.py', files[kind], *options, *out, check=False)
    assert message in one_line(done)
    assert not list(tmp_path.glob('*.xml')) and 'calibrating' not in done.stdout


def test_files_that_are_not_ours(run_tool, image_folder, tmp_path):
    for name, content, message in (
        ('a.xml', '', 'a.xml is not an .onnx file of tools/export.py'),
        ('b.onnx', None, 'b.onnx is not there'),
        ('c.onnx', 'no', 'c.onnx cannot be read by OpenVINO; expected an ONNX file of tools/export.py'),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        arguments = [tmp_path / name, '--images', image_folder / 'train' / 'red', '--out', tmp_path / 'out.xml']
        assert message in one_line(run_tool('quantize.py', *arguments, check=False))


def test_without_nncf(run_tool, files, image_folder, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *rest: None if name == 'nncf' else find(name, *rest))
    arguments = ['--images', image_folder / 'train' / 'red', '--out', tmp_path / 'x.xml']
    done = run_tool('quantize.py', files['classifier'], *arguments, check=False)
    assert "nncf is not installed: pip install 'fasternet_mm[int8]'" in one_line(done)
