"""A training deletes its own old checkpoints, and no other file, whatever a checkpoint that it goes on from says."""

import copy
import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook

from fasternet_mm import AtomicCheckpointHook

from .line import names, saved, train


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
