"""Everybody's weights, through every way to load them."""

import argparse
import re

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from mmpretrain import get_model
from mmpretrain.registry import MODELS

from fasternet_mm import FasterNet
from fasternet_mm.checkpoint import Layout, convert_state_dict
from fasternet_mm.errors import CheckpointError
from tests.helpers import REPO, build_classifier
from tests.helpers.golden import LAYOUT, VARIANTS, official_state_dict

pytestmark = pytest.mark.usefixtures('mmpretrain_scope')

HEAD = 'head.conv.weight', 'head.fc.weight', 'head.fc.bias'


# --- the names


@pytest.mark.parametrize('arch', VARIANTS)
def test_the_names_of_the_official_files(arch):
    with torch.device('meta'):
        ours = build_classifier(arch).state_dict()
    theirs = {name: list(tensor.shape) for name, tensor in convert_state_dict(ours, 'official').items()}
    assert theirs == LAYOUT[arch]['classification']


@pytest.mark.parametrize('arch', VARIANTS)
def test_the_names_of_timm(arch):
    with torch.device('meta'):
        ours = build_classifier(arch).state_dict()
        timms = timm.create_model(f'fasternet_{arch}').state_dict()
    theirs = {name: tensor.shape for name, tensor in convert_state_dict(ours, 'timm').items()}
    assert theirs == {name: tensor.shape for name, tensor in timms.items()}


shapes = st.fixed_dictionaries(
    dict(
        embed_dims=st.sampled_from([4, 8, 12]),
        depths=st.tuples(*[st.integers(1, 12)] * 4),
    )
)


@settings(max_examples=25, deadline=None)
@given(arch=shapes, layer_scale=st.sampled_from([0, 0.1]), head=st.booleans(), data=st.data())
def test_renaming_there_and_back_changes_nothing(arch, layer_scale, head, data):
    with torch.device('meta'):
        model = FasterNet(arch, layer_scale_init_value=layer_scale)
    start = {f'backbone.{name}': tensor for name, tensor in model.state_dict().items()}
    if head:
        start |= {name: torch.empty(2) for name in HEAD}
    state_dict = start
    for layout in data.draw(st.lists(st.sampled_from(['official', 'timm', 'mm']), max_size=5)):
        state_dict = convert_state_dict(state_dict, layout)
        found = Layout(state_dict)
        assert (found.kind, found.part) == (layout, 'classifier' if head else 'backbone')
    back = convert_state_dict(state_dict, 'mm')
    assert list(back) == list(start) and all(back[name] is start[name] for name in start)


# --- the files: one set of weights of a tiny network, as everybody would publish it


@pytest.fixture
def backbone_cfg(tiny):
    return dict(type='FasterNet', **tiny)


def detector_cfg(backbone: dict) -> Config:
    cfg = Config.fromfile(REPO / 'configs' / 'mask_rcnn_fasternet_t0_sample.py').model
    cfg.backbone = backbone
    cfg.neck.in_channels = [8, 16, 32, 64]
    return cfg


def randomised(model: torch.nn.Module) -> dict:
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.state_dict()


@pytest.fixture(params=['official', 'timm', 'mm', 'detection', 'safetensors', 'bare'])
def file(request, tmp_path, tiny_classifier, backbone_cfg):
    """A file of one layout: its path, its weights as we name them, and how the log calls it."""
    layout = request.param
    path = tmp_path / ('model.safetensors' if layout == 'safetensors' else 'model.pth')
    if layout == 'detection':  # as mmdet 2.25 wrote them
        with DefaultScope.overwrite_default_scope('mmdet'):
            weights = randomised(DETECTORS.build(detector_cfg(dict(backbone_cfg, out_norm=True))))
        meta = dict(mmdet_version='2.25.1', mmcv_version='1.6.1', CLASSES=('person',), config='...', epoch=12)
        torch.save(dict(meta=meta, state_dict=weights, optimizer=dict(state={}, param_groups=[])), path)
        return path, weights, 'mm or official detector'
    weights = randomised(MODELS.build(tiny_classifier))
    if layout == 'bare':
        weights = {name: tensor for name, tensor in weights.items() if name.startswith('backbone.')}
        torch.save(convert_state_dict(weights, 'official'), path)
        return path, weights, 'official backbone'
    if layout == 'safetensors':  # as timm publishes them
        from safetensors.torch import save_file

        save_file(convert_state_dict(weights, 'timm'), path)
        return path, weights, 'timm classifier'
    content = convert_state_dict(weights, layout)
    torch.save(content if layout != 'mm' else dict(meta={}, state_dict=content), path)
    return path, weights, f'{layout} classifier'


# --- the models


def assert_loaded(module, weights: dict, prefix: str, log: list, layout: str, parts: tuple[str, ...]) -> None:
    """Tensors of `module` under `parts` are the file's, and the log says how it was recognised."""
    state = module.state_dict()
    wanted = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    own = [name for name in state if name.startswith(parts) and not name.endswith('num_batches_tracked')]
    assert own and all(torch.equal(state[name], wanted[name]) for name in own)
    (line,) = [line for line in log if line.startswith('Checkpoint layout')]
    counted = [name for name in state if not name.endswith('num_batches_tracked')]
    matched = [name for name in counted if name in wanted and ('head' in parts or not name.startswith('head.'))]
    counts = f'{len(matched)} of {len(counted)} tensors of {type(module).__name__} matched.'
    assert line.startswith(f'Checkpoint layout: {layout}. {counts}')


BACKBONE = ('backbone.patch_embed', 'backbone.stages')
BARE = ('patch_embed', 'stages')


def test_a_backbone_by_init_cfg(file, log, backbone_cfg):
    path, weights, layout = file
    backbone_cfg['init_cfg'] = dict(type='Pretrained', checkpoint=str(path))
    model = MODELS.build(backbone_cfg)
    model.init_weights()
    assert_loaded(model, weights, 'backbone.', log, layout, BARE)


def test_a_backbone_by_load_checkpoint(file, log, backbone_cfg):
    path, weights, layout = file
    model = MODELS.build(backbone_cfg)
    load_checkpoint(model, str(path))
    assert_loaded(model, weights, 'backbone.', log, layout, BARE)


@pytest.mark.parametrize('where', ['detector', 'backbone', 'load_checkpoint'])
def test_a_detector(file, log, backbone_cfg, where):
    path, weights, layout = file
    backbone_cfg['out_norm'] = True
    pretrained = dict(type='Pretrained', checkpoint=str(path))
    cfg = detector_cfg(backbone_cfg)
    if where == 'detector':
        cfg.init_cfg = pretrained
    elif where == 'backbone':
        cfg.backbone.init_cfg = pretrained
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = DETECTORS.build(cfg)
        model.init_weights()
        if where == 'load_checkpoint':
            load_checkpoint(model, str(path))
    if where == 'backbone':
        assert_loaded(model.backbone, weights, 'backbone.', log, layout, BARE)
    else:
        whole = ('backbone', 'neck', 'rpn_head', 'roi_head') if 'detector' in layout else BACKBONE
        assert_loaded(model, weights, '', log, layout, whole)


@pytest.mark.parametrize('where', ['pretrained', 'load_checkpoint', 'get_model'])
def test_a_classifier(file, log, tiny_classifier, where):
    path, weights, layout = file
    if where == 'get_model':
        model = get_model(Config(dict(model=tiny_classifier)), pretrained=str(path))
    else:
        if where == 'pretrained':
            tiny_classifier['pretrained'] = str(path)
        model = MODELS.build(tiny_classifier)
        model.init_weights()
        if where == 'load_checkpoint':
            load_checkpoint(model, str(path))
    has_head = 'classifier' in layout
    assert_loaded(model, weights, '', log, layout, BACKBONE + (('head',) if has_head else ()))
    assert has_head or 'The checkpoint has no classification head: the head keeps its initial weights.' in log


def test_a_classifier_with_another_head_takes_the_backbone_alone(file, log, tiny_classifier):
    path, weights, layout = file
    tiny_classifier['head'] = dict(type='LinearClsHead', num_classes=3, in_channels=64)
    model = MODELS.build(tiny_classifier)
    load_checkpoint(model, str(path))
    assert_loaded(model, weights, '', log, layout, BACKBONE)


def test_a_backbone_deeper_in_a_model_keeps_its_names(tmp_path, log, backbone_cfg):
    model = torch.nn.ModuleDict(dict(student=torch.nn.ModuleDict(dict(backbone=MODELS.build(backbone_cfg)))))
    weights = {name: tensor.clone() for name, tensor in randomised(model).items()}
    torch.save(weights, tmp_path / 'nested.pth')
    torch.nn.init.zeros_(model['student']['backbone'].patch_embed.proj.weight)
    load_checkpoint(model, str(tmp_path / 'nested.pth'))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize('layout', ['official', 'timm', 'mm'])
def test_a_file_saved_from_a_wrapped_model(tmp_path, log, tiny_classifier, layout):
    weights = randomised(MODELS.build(tiny_classifier))
    wrapped = {f'module.{name}': tensor for name, tensor in convert_state_dict(weights, layout).items()}
    torch.save(dict(state_dict=wrapped, args=argparse.Namespace(lr=1)), tmp_path / 'ddp.pth')
    if hasattr(torch.serialization, 'safe_globals'):  # timm does this around a load of its own
        with torch.serialization.safe_globals([argparse.Namespace]):
            pass
    model = MODELS.build(tiny_classifier)
    load_checkpoint(model, str(tmp_path / 'ddp.pth'))
    assert_loaded(model, weights, '', log, f'{layout} classifier', (*BACKBONE, 'head'))


def test_a_semi_supervised_detector_has_two_of_them(file, log, backbone_cfg):
    path, weights, layout = file
    backbone_cfg['out_norm'] = True
    cfg = dict(detector=detector_cfg(backbone_cfg), semi_train_cfg=dict(), semi_test_cfg=dict())
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = DETECTORS.build(dict(type='SemiBaseDetector', **cfg))
    load_checkpoint(model, str(path))
    state = model.state_dict()
    for part in ('student', 'teacher'):
        names = [name for name in weights if name.startswith(BACKBONE)]
        assert all(torch.equal(state[f'{part}.{name}'], weights[name]) for name in names)
    (line,) = [line for line in log if line.startswith('Checkpoint layout')]
    matched, total = map(int, re.search(r'(\d+) of (\d+) tensors', line).groups())
    backbones = 2 * sum(not name.endswith('num_batches_tracked') for name in names)
    assert matched == (total if 'detector' in layout else backbones)


# --- what does not fit


def test_another_variant_is_named(tmp_path):
    torch.save(convert_state_dict(official_state_dict('t1', 'classification', 0), 'timm'), tmp_path / 't1.pth')
    with pytest.raises(CheckpointError) as error:
        get_model('fasternet-t0_8xb512_in1k', pretrained=str(tmp_path / 't1.pth'))
    text = str(error.value)
    assert (
        'a file of another variant: t1 (64 channels, depths (1, 2, 8, 2)), where the model is t0 (40 channels' in text
    )
    assert '111 of another shape: patch_embed.proj.weight (64, 3, 4, 4), not (40, 3, 4, 4)' in text
    assert text.count(', not (') == 10 and text.endswith('(layout recognised: timm classifier)')


def test_missing_and_unexpected_tensors_are_listed(tmp_path, backbone_cfg):
    weights = dict(MODELS.build(backbone_cfg).state_dict())
    del weights['stages.1.norm.bias']
    weights['stages.0.blocks.0.extra'] = torch.zeros(1)
    torch.save(weights, tmp_path / 'edited.pth')
    with pytest.raises(CheckpointError, match='most likely it is incomplete, or of other settings') as error:
        load_checkpoint(MODELS.build(backbone_cfg), str(tmp_path / 'edited.pth'))
    assert '1 missing: stages.1.norm.bias; 1 unexpected: stages.0.blocks.0.extra' in str(error.value)


@pytest.mark.parametrize('layout', ['official', 'timm', 'mm'])
def test_another_class_count_is_refused_and_allowed_on_request(tmp_path, log, tiny_classifier, layout):
    weights = randomised(MODELS.build(tiny_classifier))
    torch.save(convert_state_dict(weights, layout), tmp_path / 'three.pth')
    tiny_classifier['head']['num_classes'] = 5
    message = 'most likely it is a head of another class count: the file has 3 classes, the model 5'
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(MODELS.build(tiny_classifier), str(tmp_path / 'three.pth'))
    assert 'model.head.ignore_mismatched_sizes=True' in str(error.value)
    log.clear()
    tiny_classifier['head']['ignore_mismatched_sizes'] = True
    model = MODELS.build(tiny_classifier)
    before = model.head.fc.weight.clone()
    load_checkpoint(model, str(tmp_path / 'three.pth'))
    assert 'As asked, the linear layer keeps its initial weights: the file has 3 classes, the model 5.' in log
    assert torch.equal(model.head.conv.weight, weights['head.conv.weight'])
    assert torch.equal(model.head.fc.weight, before)


@pytest.mark.parametrize(
    ('name', 'cause'),
    [
        ('extra.weight', 'incomplete, or of other settings'),
        ('stages.0.blocks.0.layer_scale', 'incomplete, or of other settings such as .*layer_scale_init_value'),
    ],
)
def test_nothing_of_the_backbone_is_dropped(tmp_path, backbone_cfg, name, cause):
    weights = {**MODELS.build(backbone_cfg).state_dict(), name: torch.zeros(8)}
    torch.save(weights, tmp_path / 'more.pth')
    with pytest.raises(CheckpointError, match=f'most likely it is {cause}.*1 unexpected: {name}'):
        load_checkpoint(MODELS.build(backbone_cfg), str(tmp_path / 'more.pth'))


def test_weights_one_level_too_deep_are_found_for_the_user(tmp_path, backbone_cfg):
    torch.save(dict(model=MODELS.build(backbone_cfg).state_dict(), epoch=3), tmp_path / 'deep.pth')
    with pytest.raises(CheckpointError, match="most likely it is a file that keeps its weights under 'model'"):
        load_checkpoint(MODELS.build(backbone_cfg), str(tmp_path / 'deep.pth'))


@pytest.mark.parametrize('allowed', [True, False])
def test_another_kind_of_head_is_refused(tmp_path, tiny_classifier, allowed):
    other = dict(tiny_classifier, head=dict(type='LinearClsHead', num_classes=5, in_channels=64))
    torch.save(MODELS.build(other).state_dict(), tmp_path / 'linear.pth')
    tiny_classifier['head']['ignore_mismatched_sizes'] = allowed
    with pytest.raises(CheckpointError, match='a file of another kind of head'):
        load_checkpoint(MODELS.build(tiny_classifier), str(tmp_path / 'linear.pth'))


def test_another_hidden_width_is_refused_even_so(tmp_path, tiny_classifier):
    torch.save(randomised(MODELS.build(tiny_classifier)), tmp_path / 'narrow.pth')
    tiny_classifier['head'].update(hidden_channels=32, num_classes=5, ignore_mismatched_sizes=True)
    with pytest.raises(CheckpointError, match='does not fit FasterNetClsHead: .*conv.weight'):
        load_checkpoint(MODELS.build(tiny_classifier), str(tmp_path / 'narrow.pth'))
