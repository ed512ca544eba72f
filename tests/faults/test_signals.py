"""What ends a training from outside costs nothing that was saved, and says what to go on from."""

import errno
import io
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fasternet_mm.engine.cli import command_line
from fasternet_mm.engine.work_dir import LOCK
from fasternet_mm.errors import UserError
from tests.helpers import REPO
from tests.helpers.configs import write_tiny_config

from .processes import Tool
from .runs import full_disk


def lines_of(training: Tool) -> list[str]:
    assert 'Traceback' not in training.text
    return training.text.splitlines()


@pytest.fixture
def training(tiny_config, tmp_path):
    """A training with data-loader workers in its second epoch of many."""
    config = tiny_config(epochs=200, num_workers=2, extra='train_dataloader.update(batch_size=1)\n')
    started = Tool('train.py', config, log=tmp_path / 'log')
    started.wait_until(lambda: 'Epoch(train)   [2][' in started.text)
    yield started
    started.kill()


@pytest.mark.parametrize(
    ('number', 'word', 'status'), [(signal.SIGINT, 'interrupted', 130), (signal.SIGTERM, 'terminated', 143)]
)
def test_ctrl_c_and_sigterm_name_the_last_whole_checkpoint(training, tmp_path, number, word, status):
    training.signal(number)
    assert training.wait() == status
    assert lines_of(training)[-1] == (
        f'train.py: {word}; the last whole checkpoint is {tmp_path}/work/epoch_1.pth; --resume goes on from it'
    )
    assert not (tmp_path / 'work' / LOCK).exists()


def test_ctrl_c_among_the_imports_is_no_traceback():
    command = [sys.executable, REPO / 'tools' / 'train.py', 'config.py']
    tool = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while 'libtorch' not in Path(f'/proc/{tool.pid}/maps').read_text():  # mmdet comes after it
        assert tool.poll() is None
        time.sleep(0.02)
    tool.send_signal(signal.SIGINT)
    assert (tool.communicate(timeout=60), tool.returncode) == (('', ''), -signal.SIGINT)  # to a shell that is 130


TOOLS = [path for path in sorted((REPO / 'tools').glob('*.py')) if 'command_line' in path.read_text()]


@pytest.mark.parametrize('path', TOOLS, ids=lambda path: path.name)
def test_every_tool_lets_ctrl_c_end_its_imports_and_then_cleans_up(path):
    imports, _, main = path.read_text().partition('import argparse')
    assert 'signal.signal(signal.SIGINT, signal.SIG_DFL)' in imports and 'with command_line():\n        main()' in main


def test_a_killed_worker_and_a_full_disk_name_the_last_whole_checkpoint(training, tiny_config, tmp_path):
    children = subprocess.run(['pgrep', '-P', str(training.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert training.wait() == 1
    kept = f'the last whole checkpoint is {tmp_path}/work/epoch_1.pth; --resume goes on from it'
    line = lines_of(training)[-1]
    assert line.startswith(f'train.py: error: DataLoader worker (pid {children[-1]}) is killed by signal: Killed; ')
    assert line.endswith(f'; if memory ran out, lower num_workers or batch_size of the dataloader; {kept}')

    starved = Tool('train.py', tiny_config(epochs=200), '--resume', log=tmp_path / 'log', file_size=5_000_000)
    assert starved.wait() == 1
    assert lines_of(starved)[-1] == f'train.py: error: File too large: {tmp_path}/work/epoch_2.pth; {kept}'
    assert sorted(path.name for path in (tmp_path / 'work').glob('*.p*')) == ['epoch_1.pth', 'tiny.py']


@pytest.mark.parametrize('victim', [0, 1])
def test_the_other_of_two_processes_ends_too(tiny_config, tmp_path, victim):
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = str(server.getsockname()[1])
    environ = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    config = tiny_config(epochs=200, extra='train_dataloader.update(batch_size=1)\n')
    ranks = [
        Tool('train.py', config, '--launcher', 'pytorch', log=tmp_path / rank, **environ, RANK=rank, LOCAL_RANK=rank)
        for rank in '01'
    ]
    try:
        ranks[0].wait_until(lambda: 'Epoch(train)   [2][' in ranks[0].text)
        ranks[victim].kill()
        left = ranks[1 - victim]
        assert left.wait(60) == 1
        line = lines_of(left)[-1]
        assert line.startswith('train.py: error: the processes of this run lost each other: ')
        assert victim == 0 or line.endswith(f'{tmp_path}/work/epoch_1.pth; --resume goes on from it')
    finally:
        for rank in ranks:
            rank.kill()


def test_shared_memory_that_is_full_does_not_stop_a_training_in_silence(tiny_config, tmp_path):
    config = tiny_config(num_workers=1)
    starved = Tool('train.py', config, log=tmp_path / 'log', file_size=60_000)  # less than a batch, more than the logs
    assert starved.wait() == 1
    worker, line = lines_of(starved)[-2:]
    assert worker.startswith('DataLoader worker: unable to') and 'File too large' in worker
    assert line.startswith('train.py: error: DataLoader worker (pid') and 'exited unexpectedly; if memory ran' in line
    assert line.endswith('; no checkpoint was written yet')


def test_a_training_without_a_home_in_a_folder_of_any_name(tmp_path, sample):
    folder = tmp_path / 'dätä und 数据'
    shutil.copytree(sample, folder / 'sample')
    config = write_tiny_config(folder, folder / 'sample', epochs=1, num_workers=1)
    training = Tool('train.py', config, log=tmp_path / 'log', HOME='/nowhere')
    assert training.wait() == 0 and (folder / 'work' / 'epoch_1.pth').exists()


# errors that reach the end of a tool's main


def end_of(monkeypatch, capsys, error: Exception) -> tuple[int, str]:
    monkeypatch.setattr('sys.argv', ['tool.py'])
    with pytest.raises(SystemExit) as end, command_line():
        raise error
    return end.value.code, capsys.readouterr().err


def caught(function, *args) -> Exception:
    with pytest.raises((MemoryError, RuntimeError)) as error:
        function(*args)
    return error.value


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (OSError(errno.ENOSPC, 'No space left on device'), 'No space left on device'),
        (PermissionError(errno.EACCES, 'Permission denied', 'a\x1bb'), r'Permission denied: a\x1bb'),
        (caught(torch.empty, 2**60), "out of memory (.*DefaultCPUAllocator: can't allocate memory"),
        (caught(np.empty, 2**58), 'out of memory (Unable to allocate 2.00 EiB'),
        (torch.distributed.DistBackendError('NCCL error'), 'the processes of this run lost each other: NCCL error'),
        (UserError('two\nlines'), 'two lines'),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else '',
)
def test_what_happens_outside_the_program_is_one_line(monkeypatch, capsys, error, line):
    error.add_note('a note')
    status, text = end_of(monkeypatch, capsys, error)
    assert status == 1
    assert re.fullmatch(f'tool.py: error: {re.escape(line).replace(re.escape(".*"), ".*")}.*; a note\n', text)


class Large(torch.utils.data.Dataset):
    """Samples for which there is no memory."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return np.empty(2**58)


def test_a_memory_limit_that_a_worker_meets_is_one_line(monkeypatch, capsys):
    error = caught(next, iter(torch.utils.data.DataLoader(Large(), num_workers=1)))
    status, text = end_of(monkeypatch, capsys, error)
    assert status == 1 and 'worker process' not in text
    assert re.fullmatch(r'tool.py: error: out of memory \(.*Unable to allocate 2.00 EiB .*\); smaller .*\n', text)


@given(st.text(), st.text())
def test_an_error_is_one_printable_line_whatever_it_says(text, note):
    error = UserError(text)
    error.add_note(note)
    written = io.StringIO()
    with redirect_stderr(written), pytest.raises(SystemExit), command_line():
        raise error
    assert written.getvalue()[-1] == '\n' and written.getvalue()[:-1].isprintable()


@pytest.mark.parametrize(
    'error', [KeyError('x'), FileNotFoundError(errno.ENOENT, 'x'), RuntimeError('x'), OSError('x')]
)
def test_a_programming_error_stays_a_traceback(error):
    with pytest.raises(type(error), match='x'), command_line():
        raise error


def test_a_log_that_cannot_be_written_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr('sys.argv', ['tool.py'])
    log = tmp_path / 'a.log'
    logger = logging.Logger('full')
    logger.addHandler(logging.FileHandler(log))
    with full_disk(100), pytest.raises(SystemExit) as end, command_line():
        logger.warning('x' * 60)
        logger.warning('x' * 60)
    assert end.value.code == 1
    assert capsys.readouterr().err == f'tool.py: error: File too large: {log}\n'


def test_a_terminal_that_is_gone_ends_nothing(capsys):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(errno.EPIPE, 'Broken pipe')

    logger = logging.Logger('gone')
    logger.addHandler(logging.StreamHandler(Gone()))
    with command_line():
        logger.warning('a line')
    assert 'Broken pipe' in capsys.readouterr().err


def test_the_handler_of_sigterm_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with command_line():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
