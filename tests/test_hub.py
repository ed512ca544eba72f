"""mmpretrain's own API, after nothing but ``import fasternet_mm``."""

import os
import shutil
import subprocess
import sys

import mmcv
import numpy as np
import pytest
import torch
import yaml
from mmpretrain import ImageClassificationInferencer, get_model, inference_model, list_models
from mmpretrain.apis import ModelHub

from fasternet_mm import hub
from fasternet_mm.errors import CheckpointError
from tests.helpers import REPO, relative_error
from tests.helpers.golden import TABLES, VARIANTS, official_state_dict

pytestmark = pytest.mark.usefixtures('mmpretrain_scope')

NAMES = {arch: f'fasternet-{arch}_8xb{TABLES["table6_imagenet_recipe"]["per_variant"][arch]["batch"] // 8}_in1k'
         for arch in VARIANTS}  # fmt: skip


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'official.pth'
    torch.save(official_state_dict('t0', 'classification', seed=0), path)
    return str(path)


@pytest.fixture
def picture(tmp_path):
    path = str(tmp_path / 'picture.png')
    mmcv.imwrite(np.random.RandomState(0).randint(0, 255, (300, 400, 3), np.uint8), path)
    return path


def test_the_six_are_listed():
    assert list_models('fasternet*') == sorted(NAMES.values())
    assert list_models('fasternet*', task='Image Classification') == sorted(NAMES.values())


@pytest.mark.parametrize('arch', VARIANTS)
def test_get_model_by_name(arch):
    with torch.device('meta'):
        model = get_model(NAMES[arch])
    assert sum(p.numel() for p in model.parameters()) == TABLES['table8_variants'][arch]['params_exact']


def test_a_changed_class_count_by_keyword(weights):
    model = get_model(NAMES['t0'], pretrained=weights, head=dict(num_classes=7, ignore_mismatched_sizes=True))
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_inference_of_one_picture(weights, picture):
    model = get_model(NAMES['t0'], pretrained=weights)
    result = inference_model(model, picture)
    assert result['pred_scores'].shape == (1000,)
    assert result['pred_class'] == model._dataset_meta['classes'][result['pred_label']]
    # by hand: shorter side 248, the middle 224 x 224, ImageNet's mean and deviation
    image = mmcv.imread(picture, channel_order='rgb')
    image = mmcv.imresize(image, (330, 248), interpolation='bicubic', backend='pillow')[12:236, 53:277]
    image = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        scores = model(torch.from_numpy(image).permute(2, 0, 1)[None].float()).softmax(1)[0]
    assert relative_error(result['pred_scores'], scores) < 1e-3


def test_the_inferencer(weights, picture):
    inferencer = ImageClassificationInferencer(NAMES['t0'], pretrained=weights, device='cpu')
    first, second = inferencer([picture, picture])
    assert first['pred_label'] == second['pred_label'] and first['pred_scores'].shape == (1000,)


def test_pretrained_weights_out_of_reach_say_so(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')  # nobody listens
    with pytest.raises(
        CheckpointError,
        match='could not download https://github.com/.*t0.*put it at .*in Python pretrained=FILE',
    ):
        get_model(NAMES['t0'], pretrained=True)


def test_registering_twice_changes_nothing():
    before = dict(ModelHub._models_dict)
    hub.register_models()
    assert ModelHub._models_dict == before


def test_the_metafile_says_what_the_paper_says():
    models = yaml.safe_load((REPO / 'configs' / 'metafile.yml').read_text())['Models']
    assert [model['Name'] for model in models] == list(NAMES.values())
    for arch, model in zip(VARIANTS, models):
        assert (REPO / model['Config']).name == f'fasternet_{arch}_in1k.py'
        assert model['Weights'].endswith('/v1.0/' + TABLES['official_weights']['classification'][arch])
        # the weights are the authors', and so are the results
        assert model['Converted From'] == dict(Weights=model['Weights'], Code='https://github.com/JierunChen/FasterNet')
        (result,) = model['Results']
        assert result['Metrics'] == {'Top 1 Accuracy': TABLES['table6_imagenet_recipe']['per_variant'][arch]['top1']}
        assert model['Metadata']['Parameters'] == TABLES['table8_variants'][arch]['params_exact']
        assert round(model['Metadata']['FLOPs'] / 1e9, 2) == TABLES['table8_variants'][arch]['gflops']


def test_nothing_is_downloaded_at_import():
    code = (
        'import socket\n'
        'def refuse(*args): raise AssertionError("a connection was opened")\n'
        'socket.socket.connect = refuse\n'
        'import fasternet_mm, mmpretrain; print(len(mmpretrain.list_models("fasternet*")))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '6', done.stderr[-2000:]


def test_a_package_folder_copied_alone_imports(tmp_path):
    shutil.copytree(REPO / 'fasternet_mm', tmp_path / 'fasternet_mm', ignore=shutil.ignore_patterns('__pycache__'))
    code = 'import fasternet_mm; print(fasternet_mm.__file__)'
    env = dict(os.environ, PYTHONPATH=str(tmp_path))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.stdout.startswith(str(tmp_path)), done.stderr[-2000:]
