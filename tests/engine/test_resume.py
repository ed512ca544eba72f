"""A run killed with SIGKILL and resumed ends as the uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import REPO


def losses(work_dir: Path) -> dict[int, float]:
    """Loss by iteration over all runs in `work_dir`, the last one counting."""
    found = {}
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in log.read_text().splitlines():
            record = json.loads(line)
            if 'loss' in record:
                found[record['iter']] = record['loss']
    return found


def kill_when(command: list[str], work_dir: Path, condition) -> None:
    process = subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)  # fmt: skip
    for _ in range(1200):
        if condition() or process.poll() is not None:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, 'the run ended before it was killed'


SLOW = """
custom_imports = dict(imports=['fasternet_mm', 'slow'], allow_failed_imports=False)
custom_hooks = [dict(type='ExactResumeHook'), dict(type='SyncBuffersHook'), dict(type='SlowHook')]
"""
SLOW_MODULE = """
import time
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module(force=True)
class SlowHook(Hook):
    def after_train_iter(self, runner, **kwargs):
        time.sleep(0.15)
"""
BY_ITERATION = 'default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=2))\n'


ITERATION_LOOP = (
    BY_ITERATION
    + """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=18, val_interval=18)
param_scheduler = []
log_processor = dict(window_size=1, by_epoch=False)
"""
)


@pytest.fixture(scope='module')
def of_epochs() -> dict[int, float]:
    """Losses of a run of epochs: there neither workers nor checkpoints change them, so one run serves all."""
    return {}


@pytest.mark.parametrize(
    ('num_workers', 'extra', 'kill_at'),
    [(0, '', 8), (2, '', 8), (2, BY_ITERATION, 9), (0, ITERATION_LOOP, 9), (2, ITERATION_LOOP, 9)],
    ids=['0 workers', '2 workers', '2 workers, within an epoch', '0 workers, iterations', '2 workers, iterations'],
)
def test_same_losses_after_sigkill(
    of_epochs, tiny_config, tmp_path, run_tool, monkeypatch, num_workers, extra, kill_at
):
    (tmp_path / 'slow.py').write_text(SLOW_MODULE)
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{REPO}')
    want = {} if extra == ITERATION_LOOP else of_epochs
    if not want:
        straight = tiny_config('straight', num_workers=num_workers, extra=extra)
        run_tool('train.py', straight, '--work-dir', tmp_path / 'straight')
        want |= losses(tmp_path / 'straight')
    assert len(want) == 18  # 3 epochs of 6

    cut = tiny_config('cut', num_workers=num_workers, extra=extra + SLOW)
    command = [sys.executable, str(REPO / 'tools/train.py'), str(cut), '--work-dir', str(tmp_path / 'cut')]
    kill_when(command, tmp_path / 'cut', lambda: len(losses(tmp_path / 'cut')) >= kill_at)
    assert kill_at <= len(losses(tmp_path / 'cut')) < 18
    resumed = tiny_config('resumed', num_workers=num_workers, extra=extra)
    done = run_tool('train.py', resumed, '--work-dir', tmp_path / 'cut', '--resume')
    assert ('Resuming within epoch 2' in done.stdout) == (extra == BY_ITERATION)
    got = losses(tmp_path / 'cut')
    assert set(got) == set(want)
    assert [got[i] for i in sorted(got)] == pytest.approx([want[i] for i in sorted(want)], abs=1e-4)
