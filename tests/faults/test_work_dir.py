"""One training in a work dir at a time, and it goes on from its own last checkpoint."""

import os
import platform
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from fasternet_mm.engine.work_dir import LOCK, last_checkpoint, training_in
from fasternet_mm.errors import UserError
from tests.helpers import one_line

# the two calls of fcntl that another training makes
HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], 'w')
fcntl.lockf(file, fcntl.LOCK_EX)
print(sys.argv[2], file=file, flush=True)
print('held', flush=True)
time.sleep(60)
"""


@pytest.fixture
def cfg(tmp_path) -> Config:
    return Config(dict(work_dir=str(tmp_path / 'work'), launcher='none'))


@pytest.fixture
def other_training(tmp_path):
    """A process that holds the work dir; its identity."""
    (tmp_path / 'work').mkdir()
    who = f'host {platform.node()}, process 4711, since 2026-11-24 09:00:00'
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, tmp_path / 'work' / LOCK, who], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'held\n'
    yield process, who
    process.kill()
    process.wait()


def test_a_second_training_is_refused_and_the_first_is_named(other_training, cfg, run_tool, tiny_config):
    _, who = other_training
    line = one_line(run_tool('train.py', tiny_config(), check=False))  # the work dir of both configs
    assert line == (
        f'train.py: error: {cfg.work_dir} is in use by another training ({who}); wait for it, end it, or name another '
        '--work-dir'
    )
    assert os.listdir(cfg.work_dir) == [LOCK]


def test_the_lock_of_a_killed_training_is_taken_over(other_training, cfg):
    process, who = other_training
    process.send_signal(signal.SIGKILL)
    process.wait()
    with training_in(cfg):
        held = open(f'{cfg.work_dir}/{LOCK}').read()
        assert held.startswith(f'host {platform.node()}, process {os.getpid()}, since 20') and who not in held
    assert os.listdir(cfg.work_dir) == []


def test_the_lock_of_another_host_is_removed_by_hand(cfg, tmp_path):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / LOCK).write_text('host elsewhere, process 7, since 2026-11-24 09:00:00\n')
    with pytest.raises(UserError) as error, training_in(cfg):
        pass
    assert 'by a training on another host (host elsewhere, process 7, since 2026-11-24 09:00:00); ' in str(error.value)
    assert str(error.value).endswith(f'if it is no longer alive: rm {tmp_path}/work/{LOCK}')
    assert (tmp_path / 'work' / LOCK).exists()


@pytest.mark.parametrize(('launcher', 'rank'), [('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID')])
def test_other_processes_of_the_same_training_take_no_lock(other_training, cfg, monkeypatch, launcher, rank):
    cfg.launcher = launcher
    monkeypatch.setenv(rank, '1')
    with training_in(cfg):
        pass
    monkeypatch.setenv(rank, '0')
    with pytest.raises(UserError, match='in use by another training'), training_in(cfg):
        pass


def test_testing_takes_none(other_training, trained_detector, run_tool, cfg):
    run_tool('test.py', *trained_detector, '--work-dir', cfg.work_dir)


# last_checkpoint


@pytest.fixture
def trained(trained_detector, tmp_path):
    """A copy of a work dir whose note names the original."""
    config, checkpoint = trained_detector
    shutil.copytree(checkpoint.parent, tmp_path / 'copy')
    return config, checkpoint, tmp_path / 'copy'


def test_a_copied_work_dir_goes_on_from_its_own_file(trained, run_tool):
    config, checkpoint, copy = trained
    own = torch.load(copy / 'epoch_1.pth')
    own['message_hub']['runtime_info']['marked'] = 'own'
    torch.save(own, copy / 'epoch_1.pth')
    more = ['--cfg-options', 'train_cfg.max_epochs=2']
    done = run_tool('train.py', config, '--work-dir', copy, '--resume', *more)
    assert (
        f'{copy}/last_checkpoint names {checkpoint}, in another folder; going on from {copy}/epoch_1.pth' in done.stdout
    )
    after = torch.load(copy / 'epoch_2.pth')
    assert after['meta']['epoch'] == 2 and after['message_hub']['runtime_info']['marked'] == 'own'
    assert (copy / 'last_checkpoint').read_text() == str(copy / 'epoch_2.pth')  # as mmengine writes it
    assert not (checkpoint.parent / 'epoch_2.pth').exists()


def test_a_copied_note_without_its_file_lists_what_is_there(trained, run_tool):
    config, checkpoint, copy = trained
    (copy / 'epoch_1.pth').rename(copy / 'epoch_7.pth')
    line = one_line(run_tool('train.py', config, '--work-dir', copy, '--resume', check=False))
    assert line == (
        f"train.py: error: {copy}/last_checkpoint names '{checkpoint}', which is not in {copy} (there: epoch_7.pth); "
        'name the checkpoint to go on from: --resume FILE'
    )


@pytest.mark.parametrize('text', ['', '\n', '../../etc/passwd', '\x00', '/'])
def test_a_damaged_note_is_an_error(cfg, tmp_path, text):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'last_checkpoint').write_text(text)
    with pytest.raises(UserError, match=r'last_checkpoint names .*, which is not in .* \(there: no .pth file\)'):
        last_checkpoint(cfg)


def test_where_the_checkpoint_hook_has_a_folder_of_its_own(cfg, tmp_path):
    cfg.default_hooks = dict(checkpoint=dict(out_dir=str(tmp_path / 'out')))
    (tmp_path / 'work').mkdir()
    (tmp_path / 'out' / 'work').mkdir(parents=True)
    (tmp_path / 'out' / 'work' / 'epoch_1.pth').touch()
    assert last_checkpoint(cfg) is None
    (tmp_path / 'work' / 'last_checkpoint').write_text(str(tmp_path / 'out' / 'work' / 'epoch_1.pth'))
    assert last_checkpoint(cfg) == str(tmp_path / 'out' / 'work' / 'epoch_1.pth')
    (tmp_path / 'work' / 'last_checkpoint').write_text('s3://bucket/epoch_1.pth')
    assert last_checkpoint(cfg) == 's3://bucket/epoch_1.pth'
