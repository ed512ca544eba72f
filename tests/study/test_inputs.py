"""Pictures and networks: what is found, how it is prepared, and what is said of wrong ones."""

import cv2
import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from fasternet_mm.engine.runner import build_model, load_config
from fasternet_mm.errors import CheckpointError, DataError, UserError
from fasternet_mm.study import Preprocessing, build, find_pictures
from fasternet_mm.study.images import split
from tests.helpers import relative_error


def test_pictures_are_found_in_folders_of_folders(pictures):
    files = find_pictures(pictures)
    assert len(files) == 12 and len({file.parent for file in files}) == 3
    assert len(find_pictures(pictures, 5)) == 5 and find_pictures(pictures, 5) == find_pictures(pictures, 5)


def test_parts_are_whole_images_that_no_other_part_has(pictures):
    parts = split(find_pictures(pictures) * 5, dict(train=0.7, val=0.1, test=0.2))
    assert {name: len(files) for name, files in parts.items()} == dict(train=42, val=6, test=12)
    parts = split(find_pictures(pictures), dict(train=0.7, val=0.1, test=0.2))
    assert sorted(sum(parts.values(), [])) == find_pictures(pictures)


def test_folders_without_pictures_are_named(pictures, tmp_path):
    with pytest.raises(UserError, match='nowhere is not a folder'):
        find_pictures(tmp_path / 'nowhere')
    with pytest.raises(UserError, match='holds no pictures'):
        find_pictures(tmp_path)
    with pytest.raises(UserError, match='4 pictures are too few'):
        split(find_pictures(pictures)[:4], dict(train=0.8, test=0.2))


@pytest.mark.parametrize('cut', [0, 20, 2000])
def test_a_broken_picture_is_named(pictures, tmp_path, cut):
    file = tmp_path / 'broken.png'
    file.write_bytes(find_pictures(pictures)[0].read_bytes()[:cut])
    with pytest.raises(DataError, match='broken.png cannot be read as a picture'):
        Preprocessing()(file)


def test_pictures_are_taken_as_torchvision_takes_them(pictures):
    subject = build('torchvision://resnet18', random_weights=True)
    transform = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    for file in find_pictures(pictures)[:3]:
        assert relative_error(subject.prepare(file), transform(Image.open(file))) < 1e-5
    assert build('torchvision://resnet18', random_weights=True, size=96).prepare(file).shape == (3, 96, 96)


def test_pictures_are_taken_as_timm_takes_them(pictures):
    subject = build('timm://resnet18', random_weights=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(timm.create_model('resnet18')))
    file = find_pictures(pictures)[0]
    assert relative_error(subject.prepare(file), transform(Image.open(file))) < 1e-5
    assert subject.labels == ['random weights'] and subject.name == 'timm resnet18'


def test_pictures_are_taken_as_a_config_says(pictures, tiny_classifier_config):
    subject = build(str(tiny_classifier_config), random_weights=True)
    cfg = load_config(str(tiny_classifier_config))
    model = build_model(cfg)
    file = find_pictures(pictures)[0]
    picture = np.asarray(subject.prepare.picture(file))
    pixels = torch.from_numpy(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)).permute(2, 0, 1)
    want = model.data_preprocessor(dict(inputs=[pixels]))['inputs'][0]
    assert relative_error(subject.prepare(file), want) < 1e-5
    assert subject.prepare.size == 224


def test_weights_of_a_file_are_loaded(tmp_path):
    weights = torchvision.models.resnet18()
    torch.save(weights.state_dict(), tmp_path / 'weights.pth')
    for source in ('torchvision://resnet18', 'timm://resnet18'):
        subject = build(source, str(tmp_path / 'weights.pth'))
        assert subject.labels == [] and subject.checkpoint == str(tmp_path / 'weights.pth')
        assert torch.equal(subject.model.conv1.weight, weights.conv1.weight) and not subject.model.training


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match='layer1.2'):
        build('torchvision://resnet18', str(tmp_path / 'weights.pth'))


@pytest.mark.parametrize(
    ('source', 'said'),
    [
        ('resnet18', 'resnet18: expected a config that ends in .py, timm://NAME or torchvision://NAME'),
        ('torchvision://resnet19', "torchvision has no model 'resnet19'; did you mean 'resnet"),
        ('torchvision://fasterrcnn_resnet50_fpn', 'is no classifier'),
        ('timm://resnet19', "has no model 'resnet19'"),
        ('x.py', 'config not found: x.py'),
    ],
)
def test_networks_that_are_not_there_are_named(source, said):
    with pytest.raises(UserError, match=said):
        build(source, random_weights=True)


def test_random_weights_are_never_taken_unasked(tiny_classifier_config, tmp_path):
    with pytest.raises(UserError, match='give a checkpoint after it, or --random-weights'):
        build(str(tiny_classifier_config))
    with pytest.raises(UserError, match='exclude each other'):
        build(str(tiny_classifier_config), 'x.pth', random_weights=True)


def test_without_network_the_file_to_give_is_named(monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr('fasternet_mm.checkpoint.loading.urlopen', unreachable)
    with pytest.raises(
        CheckpointError, match='no route to host.*download https://download.pytorch.org/.*resnet18'
    ) as e:
        build('torchvision://resnet18')
    assert '\n' not in str(e.value)
    monkeypatch.setattr('timm.models._builder.load_pretrained', unreachable)
    with pytest.raises(CheckpointError, match='huggingface.co/timm/resnet18.*no route to host.*safetensors'):
        build('timm://resnet18')
