"""One training in a work dir at a time, and it goes on from its own last checkpoint."""

import errno
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from fasternet_mm.engine import work_dir
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


def test_a_file_system_without_locks_can_be_trained_on(cfg, monkeypatch):
    def lockf(*args):
        raise OSError(errno.ENOSYS, 'Function not implemented')

    monkeypatch.setattr('fcntl.lockf', lockf)
    with training_in(cfg):
        assert os.listdir(cfg.work_dir) == [LOCK]


def test_a_system_without_fcntl_can_train_and_says_what_it_lacks(cfg, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'fcntl', None)  # as on Windows
    spec = importlib.util.find_spec(work_dir.__name__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.training_in(cfg):
        assert not os.path.exists(f'{cfg.work_dir}/{LOCK}')
    assert capsys.readouterr().out.endswith(f': mind that nothing else trains in {cfg.work_dir}\n')


@pytest.mark.parametrize(('launcher', 'rank'), [('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID')])
def test_other_processes_of_the_same_training_take_no_lock(other_training, cfg, monkeypatch, launcher, rank):
    cfg.launcher = launcher
    monkeypatch.setenv(rank, '1')
    with training_in(cfg):
        pass
    monkeypatch.setenv(rank, '0')
    with pytest.raises(UserError, match='in use by another training'), training_in(cfg):
        pass


def test_testing_takes_none(other_training, cfg, run_tool, tiny_config, tmp_path):
    (tmp_path / 'broken.pth').write_bytes(b'broken')
    line = one_line(run_tool('test.py', tiny_config(), tmp_path / 'broken.pth', check=False))
    assert 'broken.pth is damaged' in line  # it came as far as that


# last_checkpoint


@pytest.fixture
def copied(cfg, tmp_path) -> tuple:
    """A work dir that was copied with its note, which names the original."""
    for folder in ('original', 'work'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'epoch_1.pth').write_bytes(b'broken')
        (tmp_path / folder / 'last_checkpoint').write_text(f'{tmp_path}/original/epoch_1.pth')
    return tmp_path / 'original', tmp_path / 'work'


def test_a_copied_work_dir_goes_on_from_its_own_file(copied, run_tool, tiny_config):
    original, copy = copied
    done = run_tool('train.py', tiny_config(), '--resume', check=False)
    said = f'{copy}/last_checkpoint names {original}/epoch_1.pth, in another folder; going on from {copy}/epoch_1.pth\n'
    assert said in done.stdout
    assert f'error: {copy}/epoch_1.pth is damaged' in one_line(done)  # it was this one that was loaded
    assert (copy / 'last_checkpoint').read_text() == f'{original}/epoch_1.pth'  # mmengine's format, and nothing saved


def test_a_work_dir_that_was_moved_or_is_a_link_goes_on(copied, cfg, capsys):
    original, copy = copied
    shutil.rmtree(original)
    assert last_checkpoint(cfg) == str(copy / 'epoch_1.pth')
    original.symlink_to(copy)
    capsys.readouterr()
    assert last_checkpoint(cfg) == str(copy / 'epoch_1.pth')
    assert capsys.readouterr().out == ''  # the same file under another name is nothing to speak of


def test_a_note_whose_file_is_not_there_lists_what_is(copied, run_tool, tiny_config):
    original, copy = copied
    (copy / 'epoch_1.pth').rename(copy / 'epoch_7.pth')
    line = one_line(run_tool('train.py', tiny_config(), '--resume', check=False))
    assert line == (
        f"train.py: error: {copy}/last_checkpoint names '{original}/epoch_1.pth', which is not in {copy} (there: "
        'epoch_7.pth); name the checkpoint to go on from: --resume FILE'
    )


@given(
    st.text(st.characters(exclude_categories=['Cs']))
    | st.sampled_from(['/', '..', '../../etc/passwd', 'a/epoch_1.pth'])
)
def test_a_damaged_note_is_an_error_or_names_a_file_of_this_work_dir(text):
    with tempfile.TemporaryDirectory() as work:
        Path(work, 'epoch_1.pth').touch()
        Path(work, 'last_checkpoint').write_text(text)
        try:
            assert last_checkpoint(Config(dict(work_dir=work, launcher='none'))) == f'{work}/epoch_1.pth'
            assert Path(text.strip()).name == 'epoch_1.pth'
        except UserError as error:
            assert f'which is not in {work} (there: epoch_1.pth)' in str(error)


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
