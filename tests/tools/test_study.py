"""``tools/study.py`` from the command line."""

import pytest
import torch
import torchvision

from fasternet_mm.study import load_study
from tests.helpers import one_line

SMALL = ('--size', '64', '--device', 'cpu')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp('weights') / 'resnet18.pth'
    torch.save(torchvision.models.resnet18().state_dict(), file)
    return file


def test_substitutes_of_a_layer(run_tool, weights, image_folder, tmp_path):
    what = ('approximation', 'torchvision://resnet18', weights, '--images', image_folder, '--out', tmp_path, *SMALL)
    done = run_tool('study.py', *what, '--layers', 'layer1.0.conv1', '--rows', '2000', '--steps', '20')
    assert {path.name for path in tmp_path.iterdir()} == {
        'study.json', 'study.md', 'approximation.png', 'training.png',
    }  # fmt: skip
    study = load_study(tmp_path)
    assert study.model == 'torchvision resnet18' and len(study.checkpoint_sha256) == 64
    assert study.labels == [label for label in study.labels if 'busy' in label]
    (layer,) = study.result.layers
    assert layer.name == 'layer1.0.conv1' and len(layer.substitutes) == 6
    assert 'PConv + PWConv' in done.stdout and f'written to {tmp_path}' in done.stdout


def test_filters_and_maps(run_tool, image_folder, tmp_path):
    where = ('--images', image_folder, '--random-weights', *SMALL)
    run_tool('study.py', 'salient', 'torchvision://resnet18', '--out', tmp_path / 'salient', *where)
    run_tool('study.py', 'redundancy', 'torchvision://resnet18', '--out', tmp_path / 'maps', *where)
    salient, maps = load_study(tmp_path / 'salient'), load_study(tmp_path / 'maps')
    assert [stage.filters for stage in salient.result.stages] == [256, 512, 1024, 2048]
    assert [layer.channels for layer in maps.result.layers] == [64, 64, 128, 256]
    assert salient.labels == maps.labels == ['random weights']
    assert len(list((tmp_path / 'maps').glob('maps_*.png'))) == 4


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--images', 'nowhere'], 'nowhere is not a folder'),
        (['--images', '.', '--layers', 'layer1.0.conv3'], 'no such layer; did you mean'),
    ],
)
def test_a_wrong_input_is_one_line(run_tool, image_folder, tmp_path, arguments, said):
    arguments = [str(image_folder / 'train') if one == '.' else one for one in arguments]
    model = ('torchvision://resnet18', '--random-weights', '--out', tmp_path, *SMALL)
    assert said in one_line(run_tool('study.py', 'approximation', *model, *arguments, check=False))


def test_maps_of_a_detector(run_tool, trained_detector, image_folder, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    picture = image_folder / 'val' / 'blue' / '0.png'
    what = ('features', *trained_detector, '--images', picture, '--device', 'cpu', '--score-thr', '0.01')
    done = run_tool('study.py', *what, '--out', tmp_path, '--layer', 'neck[0]', '--method', 'activation', 'layercam')
    study = load_study(tmp_path)
    assert study.study == 'features' and study.labels == [] and study.images.number == 1
    (seen,) = study.result.pictures
    assert seen.picture == '0.png' and seen.size == [80, 96] and seen.input == [160, 192]
    assert {'study.json', 'study.md', '0_features.png', '0_neck_0_activation.png'} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert [(one.layer, one.method) for one in seen.maps] == [('neck[0]', 'activation'), ('neck[0]', 'layercam')]
    assert {one.name for one in seen.found} <= {'circle', 'square', 'triangle'} and seen.found[0].target
    assert 'neck[0]' in done.stdout
    done = run_tool('study.py', *what, '--out', tmp_path / 'none', '--list-layers')
    assert 'neck[0]: 64 x 40 x 48' in done.stdout.splitlines() and not (tmp_path / 'none').exists()
    done = run_tool('study.py', *what, '--out', tmp_path, '--size', '64', check=False)
    assert 'own test pipeline' in done.stderr
    done = run_tool('study.py', *what, '--out', tmp_path, '--class', 'circel', check=False)
    assert "--class circel: the model has 3 classes by name; did you mean 'circle'" in one_line(done)
