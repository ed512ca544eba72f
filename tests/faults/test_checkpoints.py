"""Whatever a checkpoint file holds: it is loaded as it was written, or one error names it; no other file is touched."""

import copy
import io
import itertools
import math
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmpretrain.registry import MODELS

from fasternet_mm import AtomicCheckpointHook
from fasternet_mm.checkpoint import load_strict, require_source
from fasternet_mm.engine.resume import require_resumable
from fasternet_mm.engine.runner import FittingCheckpointHook
from fasternet_mm.errors import CheckpointError, DamagedCheckpointError

RUNS = itertools.count()  # each with a message hub of its own


class Line(BaseModel):
    def __init__(self, width: int = 2):
        super().__init__()
        self.layer = torch.nn.Linear(width, 1)
        self.width = width

    def forward(self, *inputs, mode='loss'):
        loss = self.layer(torch.ones(1, self.width)).square().sum()
        return dict(loss=loss) if mode == 'loss' else [loss]


def train(work_dir, epochs=2, resume=None, *, model=None, optim_wrapper=None, schedules=1, checkpoint=None, hooks=()):
    """Two iterations an epoch, with the hook `checkpoint`."""
    optim_wrapper = dict(dict(optimizer=dict(type='AdamW', lr=0.1)), **(optim_wrapper or {}))
    runner = Runner(
        model or Line(),
        work_dir=str(work_dir),
        train_dataloader=dict(dataset=[0, 1], batch_size=1, sampler=dict(type='DefaultSampler')),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=optim_wrapper,
        param_scheduler=[dict(type='ExponentialLR', gamma=0.9) for _ in range(schedules)],
        default_hooks=dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1, **(checkpoint or {}))),
        custom_hooks=list(hooks),
        experiment_name=f'{work_dir}-{next(RUNS)}',
        load_from=None if resume is None else str(resume),
        resume=resume is not None,
        cfg=Config(dict(optim_wrapper=optim_wrapper)),
    )
    if resume is not None:
        runner.register_hook(FittingCheckpointHook(), priority='VERY_HIGH')
    runner.train()
    return runner


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> dict:
    """A checkpoint's content after the first of two epochs."""
    folder = tmp_path_factory.mktemp('trained')
    train(folder, epochs=1)
    return torch.load(folder / 'epoch_1.pth')


def saved(folder: Path, content) -> Path:
    torch.save(content, folder / 'given.pth')
    return folder / 'given.pth'


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))


# ---- what a resumed checkpoint may delete


def hook_in(folder: Path, **arguments) -> AtomicCheckpointHook:
    hook = AtomicCheckpointHook(**arguments)
    hook.out_dir = str(folder)
    hook.file_backend = LocalBackend()
    return hook


OWN = {
    'epoch_3.pth': 'epoch_{}.pth',
    'best_coco_bbox_mAP_epoch_12.pth': 'epoch_{}.pth',
    'at-0012.ckpt': 'at-{:04d}.ckpt',
    'latest.pth': 'latest.pth',
}


@pytest.mark.parametrize('name', OWN)
@pytest.mark.parametrize('folder', ['', '/elsewhere/', '../', r'C:\work\\'])
def test_a_name_of_our_own_is_meant_in_our_folder(tmp_path, name, folder):
    assert hook_in(tmp_path, filename_tmpl=OWN[name])._own(folder + name) == str(tmp_path / name)


NOT_OWN = ['epoch_.pth', 'epoch_1.pth.bak', 'my_epoch_1.pth', 'epoch_1.pth\n', 'epoch_1.pth/', 'epoch_1.pth/..',
           'best_epoch_1', 'epoch_1xpth', 'train.py', '/etc/passwd', '', '..', '.', None, 3, []]  # fmt: skip


@pytest.mark.parametrize('path', NOT_OWN)
def test_any_other_name_is_not_ours(tmp_path, path):
    assert hook_in(tmp_path)._own(path) is None


@settings(max_examples=50, deadline=None)
@given(path=st.text() | st.from_regex(r'[./\\]*(best_.*)?epoch_\d+\.pth[./\\]*', fullmatch=True))
def test_no_path_leaves_our_folder(path):
    own = hook_in(Path('/work'))._own(path)
    assert own is None or (own.startswith('/work/') and own.endswith('.pth') and '/' not in own[6:])


class Validate(Hook):
    """Scores that get better from epoch to epoch."""

    def after_train_epoch(self, runner):
        saving = next(hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook))
        saving.after_val_epoch(runner, dict(ap=runner.epoch))


FORGED = {
    'an absolute path': lambda victim: str(victim),
    'a way up': lambda victim: f'../{victim.name}',
    'a way up in our folder': lambda victim: f'{victim.parent}/work/../{victim.name}',
    'a number': lambda victim: 7,
    'a list': lambda victim: [str(victim)],
}


@pytest.mark.parametrize('forged', FORGED)
def test_a_forged_best_checkpoint_stays_where_it_is(tmp_path, monkeypatch, trained, forged):
    victim, work = tmp_path / 'best_ap_1.pth', tmp_path / 'work'
    victim.touch()
    content = copy.deepcopy(trained)
    content['message_hub']['runtime_info'].update(best_ckpt=FORGED[forged](victim), best_score=-1.0)
    work.mkdir()
    monkeypatch.chdir(work)
    saving = dict(max_keep_ckpts=1, save_best='ap', rule='greater', filename_tmpl='{}.pth')
    train(work, 4, saved(tmp_path, content), hooks=[Validate()], checkpoint=saving)
    assert victim.exists() and names(work) == ['4.pth', 'best_ap_3.pth']


@pytest.mark.parametrize('score', ['high', None, [1.0], math.nan, torch.zeros(2)])
def test_a_score_that_is_none_is_beaten(tmp_path, trained, score):
    content = copy.deepcopy(trained)
    content['message_hub']['runtime_info'].update(best_score=score)
    saving = dict(save_best='ap', rule='greater')
    train(tmp_path, 2, saved(tmp_path, content), hooks=[Validate()], checkpoint=saving)
    assert 'best_ap_epoch_1.pth' in names(tmp_path)


@pytest.mark.parametrize('forged', FORGED)
def test_forged_old_checkpoints_stay_where_they_are(tmp_path, trained, forged):
    victim, work = tmp_path / '1.pth', tmp_path / 'work'
    victim.touch()
    content = copy.deepcopy(trained)
    path = FORGED[forged](victim)
    ids = [str(path).removesuffix('.pth'), path, True, -1, 99, 1.5, [1], None]
    content['message_hub']['runtime_info'].update(keep_ckpt_ids=ids)
    train(work, 4, saved(tmp_path, content), checkpoint=dict(max_keep_ckpts=1, filename_tmpl='{}.pth'))
    assert victim.exists() and names(work) == ['4.pth']


def test_a_copied_work_dir_loses_nothing_and_keeps_count(tmp_path):
    saving = dict(max_keep_ckpts=1, save_best='ap', rule='greater')
    train(tmp_path / 'old', 2, hooks=[Validate()], checkpoint=saving)
    shutil.copytree(tmp_path / 'old', tmp_path / 'new')
    before = names(tmp_path / 'old')
    train(tmp_path / 'new', 4, tmp_path / 'new' / 'epoch_2.pth', hooks=[Validate()], checkpoint=saving)
    assert names(tmp_path / 'old') == before == ['best_ap_epoch_1.pth', 'epoch_2.pth']
    assert names(tmp_path / 'new') == ['best_ap_epoch_3.pth', 'epoch_4.pth']


def test_a_forged_list_does_not_delete_what_is_new(tmp_path, trained):
    content = copy.deepcopy(trained)
    content['message_hub']['runtime_info']['keep_ckpt_ids'] = [2, 1, 1, 3]
    train(tmp_path, 2, saved(tmp_path, content), checkpoint=dict(max_keep_ckpts=1))
    assert names(tmp_path) == ['epoch_2.pth', 'given.pth']


def test_a_resumed_training_still_deletes_its_own(tmp_path):
    train(tmp_path, 2, checkpoint=dict(max_keep_ckpts=2))
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    train(tmp_path, 3, tmp_path / 'epoch_2.pth', checkpoint=dict(max_keep_ckpts=1))
    assert names(tmp_path) == ['epoch_3.pth']


# ---- what a training can go on from


def test_a_checkpoint_is_data_and_no_code(tmp_path, trained):
    mark, content = tmp_path / 'it_ran', copy.deepcopy(trained)
    content['meta']['config'] = f'open({str(mark)!r}, "w")'  # where mmcv kept the config, which mmengine executes
    runner = train(tmp_path, 2, saved(tmp_path, content))
    assert runner.epoch == 2 and not mark.exists()


def without(*keys):
    return lambda content: {key: value for key, value in content.items() if key not in keys}


def with_(part, **values):
    return lambda content: {**content, part: {**content[part], **values}}


INCOMPLETE = {
    'weights alone': (lambda content: content['state_dict'], 'it holds weights, but no state of a training'),
    'no meta': (without('meta'), 'it holds weights, but no state of a training'),
    'no optimizer': (without('optimizer'), "saved without the optimizer's state"),
    'no schedules': (without('param_schedulers'), 'holds 0 schedules of the learning rate, and the config has 1'),
    'an epoch that is none': (with_('meta', epoch='1'), "its meta.epoch is '1'"),
    'a negative iteration': (with_('meta', iter=-1), 'its meta.iter is -1'),
    'a seed that is none': (with_('meta', seed='x'), "its meta.seed is 'x'"),
    'logs that are none': (with_('message_hub', log_scalars=[]), 'its message_hub.log_scalars'),
    'an optimizer without its moments': (with_('optimizer', state={}), 'its optimizer has no state after 2 iterations'),
    'an optimizer that is none': (with_('optimizer', param_groups=[1]), "its optimizer's state is none that AdamW"),
}  # fmt: skip


@pytest.mark.parametrize('case', INCOMPLETE)
def test_a_training_goes_on_whole_or_not_at_all(tmp_path, trained, case):
    change, told = INCOMPLETE[case]
    path = saved(tmp_path, change(copy.deepcopy(trained)))
    with pytest.raises(CheckpointError, match='no training can go on from it') as error:
        train(tmp_path, 2, path)
    assert told in str(error.value) and str(path) in str(error.value) and 'leave --resume out' in str(error.value)


SGD = dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
GROUPS = dict(optim_wrapper=dict(paramwise_cfg=dict(bias_lr_mult=2.0)))
CHANGED = {
    'another optimizer': (SGD, 'has betas, .*, where SGD, .* has momentum'),
    'other groups': (GROUPS, 'has 1 groups of parameters, that of the config 2'),
    'other schedules': (dict(schedules=2), 'holds 1 schedules of the learning rate, and the config has 2'),
    'another model': (dict(model=Line(3)), r'layer\.weight \(1, 2\), not \(1, 3\)'),
}  # fmt: skip


@pytest.mark.parametrize('case', CHANGED)
def test_a_training_goes_on_as_it_was_configured(tmp_path, trained, case):
    changed, told = CHANGED[case]
    with pytest.raises(CheckpointError, match=told):
        train(tmp_path, 2, saved(tmp_path, trained), **changed)


def test_an_optimizer_that_keeps_nothing_goes_on_with_nothing(tmp_path):
    for folder, momentum in ((tmp_path / 'plain', 0), (tmp_path / 'momentum', 0.9)):
        sgd = dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=momentum)))
        train(folder, 1, **sgd)
        content = torch.load(folder / 'epoch_1.pth')
        if not momentum:
            assert not any(state for state in content['optimizer']['state'].values())
        content['optimizer']['state'].clear()
        if momentum:
            with pytest.raises(CheckpointError, match='has no state after 2 iterations'):
                train(folder, 2, saved(folder, content), **sgd)
        else:
            assert train(folder, 2, saved(folder, content), **sgd).epoch == 2


@pytest.mark.parametrize('version', ['newer', 'older'])
def test_an_option_that_another_torch_has_does_not_matter(tmp_path, trained, version):
    content = copy.deepcopy(trained)
    (group,) = content['optimizer']['param_groups']
    if version == 'newer':
        group['new_option'] = None
    else:
        del group['foreach']
    assert train(tmp_path, 2, saved(tmp_path, content)).epoch == 2


def test_several_optimizers_go_on_each_with_its_own(trained):
    def wrapped(kind) -> OptimWrapper:
        return OptimWrapper(kind(torch.nn.Linear(2, 1).parameters(), lr=0.1))

    wrappers = OptimWrapperDict(a=wrapped(torch.optim.SGD), b=wrapped(torch.optim.AdamW))
    for _, wrapper in wrappers.items():
        for parameter in wrapper.param_groups[0]['params']:
            parameter.grad = torch.ones_like(parameter)
        wrapper.step()
    runner = SimpleNamespace(optim_wrapper=wrappers, param_schedulers=None)
    state = wrappers.state_dict()
    require_resumable(runner, dict(trained, optimizer=state))
    for wrong in (dict(a=state['b'], b=state['a']), dict(a=state['a']), [state]):
        with pytest.raises(CheckpointError, match='its optimizer'):
            require_resumable(runner, dict(trained, optimizer=wrong))


def test_nothing_goes_on_from_weights_that_are_not_finite(tmp_path, trained):
    content = copy.deepcopy(trained)
    content['state_dict']['layer.bias'][:] = math.nan
    with pytest.raises(CheckpointError, match=r'given\.pth: 1 of the 2 tensors .* layer\.bias \(NaN or infinite\)'):
        train(tmp_path, 2, saved(tmp_path, content))


# ---- what stands among the tensors


@pytest.fixture
def model(tiny_classifier, mmpretrain_scope):
    return MODELS.build(tiny_classifier)


WEIGHT = 'backbone.stages.0.blocks.0.mlp.0.weight'
NO_TENSORS = {
    'ndarray': lambda value: value.numpy(),
    'list': lambda value: value.tolist(),
    'NoneType': lambda value: None,
    'str': lambda value: 'weight',
    'float': lambda value: 0.5,
    'dict': lambda value: dict(tensor=value),
}
USELESS = {
    'int8': lambda value: value.to(torch.int8),
    'complex64': lambda value: value.to(torch.complex64),
    'sparse_coo': lambda value: value.to_sparse(),
    'without content': lambda value: value.to('meta'),
    'NaN or infinite': lambda value: value / 0,
}


@pytest.mark.parametrize('load', ['load_strict', 'load_checkpoint'])
@pytest.mark.parametrize('kind', [*NO_TENSORS, *USELESS])
def test_what_torch_would_not_load_as_it_is_does_not_count(model, tmp_path, kind, load):
    before = copy.deepcopy(model.state_dict())
    content = {name: value + 1 for name, value in before.items()}
    content[WEIGHT] = (NO_TENSORS | USELESS)[kind](content[WEIGHT])
    with pytest.raises(CheckpointError) as error:
        if load == 'load_strict':
            load_strict(model, content)
        else:
            load_checkpoint(model, str(saved(tmp_path, content)))
    assert f'{WEIGHT} ({kind})' in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_in_a_model_around_it_too(model, tmp_path):
    outer = torch.nn.ModuleDict(dict(student=model, neck=torch.nn.Linear(2, 2)))
    content = {name: value + 1 for name, value in outer.state_dict().items()}
    content['neck.bias'] = [0.0, 0.0]
    with pytest.raises(CheckpointError, match=r'1 of 61 entries in the file are no tensors: neck\.bias \(list\)'):
        load_checkpoint(outer, str(saved(tmp_path, content)))


def test_half_precision_and_other_entries_are_welcome(model, tmp_path):
    content = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    path = saved(tmp_path, dict(content, epoch=3, args=None))
    load_checkpoint(model, str(path))
    assert torch.equal(model.state_dict()[WEIGHT], content[WEIGHT].float())


values = st.sampled_from([None, 'text', 3, [1.0], {}, np.zeros(3), torch.zeros(()), torch.zeros(3), torch.zeros(2, 0)])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_state_dict_is_loaded_as_a_whole_or_not_at_all(data):
    model = MODELS.get('FasterNet')(arch=dict(embed_dims=8, depths=(1, 1, 1, 1), act_cfg=dict(type='ReLU')))
    before = copy.deepcopy(model.state_dict())
    content = {name: value + 1 for name, value in before.items()}
    for name in data.draw(st.lists(st.sampled_from(list(content)), max_size=3)):
        content[name] = data.draw(values)
    content |= data.draw(st.dictionaries(st.text(max_size=3), values, max_size=2))
    wanted = copy.deepcopy(content)
    try:
        load_strict(model, content)
    except CheckpointError as error:
        assert len(str(error)) < 4000
        wanted = before
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


OTHER = {
    'a list': ([torch.ones(1)], 'a dict of tensors by name, but a list'),
    'a tensor': (torch.ones(1), 'a dict of tensors by name, but a Tensor'),
    'a list inside': (dict(state_dict=[torch.ones(1)]), 'a dict of tensors by name, but a list'),
    'numbers for names': ({1: torch.ones(1)}, 'holds no state_dict, a dict of tensors by name: 1 names none'),
    'a name that moves the cursor': (dict(state_dict={'a\x1b[2J': torch.ones(1)}), r"'a\x1b[2J' names none"),
}


@pytest.mark.parametrize('case', OTHER)
def test_a_file_of_something_else_is_named(tmp_path, case):
    content, told = OTHER[case]
    with pytest.raises(CheckpointError, match='given.pth') as error:
        CheckpointLoader.load_checkpoint(str(saved(tmp_path, content)))
    assert told in '; '.join([str(error.value), *getattr(error.value, '__notes__', ())])


# ---- damage


def bytes_of(content, checksums=True) -> bytes:
    buffer = io.BytesIO()
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(checksums)
    try:
        torch.save(content, buffer)
    finally:
        torch.serialization.set_crc32_options(before)
    return buffer.getvalue()


SMALL = {'state_dict': {'a.weight': torch.arange(12.0).view(3, 4), 'b': torch.arange(5)}, 'meta': {'epoch': 3}}
WHOLE = bytes_of(SMALL)


def is_small(content) -> bool:
    same = (torch.equal(content['state_dict'][name], tensor) for name, tensor in SMALL['state_dict'].items())
    return content['meta'] == SMALL['meta'] and all(same)


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, len(WHOLE) - 1), flip=st.integers(1, 255))
def test_a_flipped_byte_is_noticed_or_harmless(place, flip):
    damaged = bytearray(WHOLE)
    damaged[place] ^= flip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'flipped.pth')
        path.write_bytes(damaged)
        try:
            content = CheckpointLoader.load_checkpoint(str(path))
        except CheckpointError as error:
            assert 'flipped.pth' in str(error)
        else:
            assert is_small(content)


def test_every_byte_of_a_tensor_counts(tmp_path):
    start = WHOLE.index(SMALL['state_dict']['a.weight'].numpy().tobytes())
    for place in range(start, start + 48):
        damaged = bytearray(WHOLE)
        damaged[place] ^= 1
        (tmp_path / 'flipped.pth').write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r'flipped\.pth is damaged .*the checksum of archive/data/0 differs'):
            CheckpointLoader.load_checkpoint(str(tmp_path / 'flipped.pth'))


def test_files_without_checksums_load(tmp_path):
    (tmp_path / 'bare.pth').write_bytes(bytes_of(SMALL, checksums=False))
    assert is_small(CheckpointLoader.load_checkpoint(str(tmp_path / 'bare.pth')))


def test_too_little_memory_is_not_called_damage(tmp_path, monkeypatch):
    path = saved(tmp_path, SMALL)
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")):
        monkeypatch.setattr(torch, 'load', Mock(side_effect=error))
        with pytest.raises(CheckpointError, match=r'not enough memory to load .*given\.pth') as raised:
            CheckpointLoader.load_checkpoint(str(path))
        assert not isinstance(raised.value, DamagedCheckpointError)


# ---- names


SOURCES = {
    'foo://x.pth': 'foo:// is unknown; known are .*fasternet://, and the path of a file',
    'htttp://host/x.pth': r'did you mean http://host/x\.pth\?',
    'HTTPS://host/x.pth': r'did you mean https://host/x\.pth\?',
    'file:///data/my%20file.pth': r'file:// is unknown; give the path alone: /data/my file\.pth',
    'fasternets://fasternet_s': r'did you mean fasternet://fasternet_s\?',
    'fasternet://fasternt_s': r'none of the official weights: .*; did you mean fasternet://fasternet_s\?',
    'fasternet://mask_rcnn_fasternet_xl': r'did you mean fasternet://mask_rcnn_fasternet_l\?',
    'fasternet://': 'none of the official weights: fasternet_t0',
    'fasternet://fasternet_s#sha256=': 'ends in no SHA-256',
    'https://host/x.pth#sha256=abc': 'ends in no SHA-256: after #sha256= come 64',
    'https://host/': 'names no file',
    'https://host/..': 'names no file',
    'nowhere.pth': r'checkpoint not found: nowhere\.pth',
    'folder': "'folder' is a folder, not a checkpoint; name one of the files in it: epoch_1.pth",
    '': "'' is a folder",
    'empty.pth': r'empty\.pth is damaged or not a PyTorch checkpoint: it is empty',
}


ZOOS = {
    'torchvision://resnet5': r"torchvision://resnet5 is none .*; did you mean 'resnet\d+' or 'resnet\d+'\?",
    'open-mmlab://resnet50_cafe': "did you mean 'resnet50_caffe'",
    'openmmlab://': 'openmmlab:// is none of the weights that mmengine knows$',
    'mmcls://nothing': 'mmcls://nothing is none of',
}


@pytest.mark.parametrize('source', ZOOS)
def test_a_name_that_mmengine_does_not_know(source):
    with pytest.raises(CheckpointError, match=ZOOS[source]):
        require_source(source)


@pytest.mark.parametrize(
    'source', ['torchvision://resnet50', 'open-mmlab://detectron2/resnet50_caffe', 'mmcls://vgg11']
)
def test_a_name_that_mmengine_knows(source):
    require_source(source)


@pytest.mark.parametrize('find', [require_source, CheckpointLoader.load_checkpoint])
@pytest.mark.parametrize('source', SOURCES)
def test_a_source_that_is_none_is_named_before_anything_is_loaded(tmp_path, monkeypatch, source, find):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'epoch_1.pth').touch()
    (tmp_path / 'empty.pth').touch()
    with pytest.raises(CheckpointError, match=SOURCES[source]):
        find(source)
