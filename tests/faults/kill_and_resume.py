"""Kill a training at random times, let its disk be full, resume it, and compare it with one that nothing disturbed.

    python -m tests.faults.kill_and_resume --seed 0 --kills 30 --full-disks 5

It takes a few minutes on two cores, and is not part of the suite. The training is that of the shipped sample config,
shrunk, with data-loader workers and a checkpoint every other iteration. After every fault each checkpoint must be whole
and the newest one no older than before; at the end every iteration's loss must equal the undisturbed run's.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

import fasternet_mm  # noqa: F401  what its checkpoints hold beside tensors is allow-listed
from fasternet_mm.datasets import generate_shapes
from tests.helpers.configs import write_tiny_config

from .processes import Tool

EPOCHS = 12  # of 6 iterations
KEEP = 3
CHECKPOINTS = f'default_hooks.update(checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts={KEEP}))\n'


def losses(work: Path) -> dict[int, float]:
    """Return the loss of each iteration that was logged, by the last run that came to it."""
    found = {}
    for log in sorted(work.glob('*/vis_data/scalars.json')):
        for line in log.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # a kill tore it; the iteration is repeated
                continue
            if 'loss' in record:
                found[record['iter']] = record['loss']
    return found


def whole_checkpoints(work: Path) -> list[int]:
    """Return the iterations of the checkpoints in a work dir, all of which must load, as the noted one must."""
    iterations = sorted(torch.load(path, map_location='cpu')['meta']['iter'] for path in work.glob('*.pth'))
    assert iterations == sorted(int(path.stem.removeprefix('iter_')) for path in work.glob('*.pth'))
    note = work / 'last_checkpoint'
    assert not note.exists() or Path(note.read_text()).is_file(), note.read_text()
    return iterations


class Study:
    """Runs that are disturbed and resumed until all faults are used up.

    Args:
        root (Path): Folder for everything.
        seed (int): Of the faults' order and times.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.root = root
        self.counts = Counter()
        sample = generate_shapes(root / 'sample', num_train=12, num_val=4, size=64)
        self.config = write_tiny_config(root, sample, epochs=EPOCHS, num_workers=2, extra=CHECKPOINTS)
        started = time.monotonic()
        assert self.start(root / 'undisturbed').wait(600) == 0
        self.seconds = time.monotonic() - started
        self.want = losses(root / 'undisturbed')
        assert len(self.want) == 6 * EPOCHS
        self.size = next((root / 'undisturbed').glob('*.pth')).stat().st_size

    def start(self, work: Path, **limits) -> Tool:
        return Tool('train.py', self.config, '--work-dir', work, '--resume', log=self.root / 'log', **limits)

    def run(self, faults: list[str]) -> None:
        """Go through all faults, in as many trainings as it takes, and finish each training."""
        number = 0
        while faults:
            work = self.root / f'disturbed_{number}'
            number += 1
            while faults and self.disturb(faults[-1], work):
                faults.pop()
            assert self.start(work).wait(600) == 0
            self.compare(work)

    def disturb(self, fault: str, work: Path) -> bool:
        """Run until a fault, and check what it left; return False if the training ended before."""
        before = whole_checkpoints(work)
        training = self.start(work, **(dict(file_size=self.rng.randint(10**6, self.size)) if 'disk' in fault else {}))
        if fault == 'kill':
            deadline = time.monotonic() + self.rng.uniform(0.2, 0.4 * self.seconds)
            while training.alive and time.monotonic() < deadline:
                time.sleep(0.005)
            ended = not training.alive
            training.kill()
            if ended:
                assert training.wait() == 0, training.text[-3000:]
        else:
            status, line = training.wait(600), training.text.splitlines()[-1]
            ended = status == 0
            if not ended:
                note = work / 'last_checkpoint'
                kept = f'the last whole checkpoint is {note.read_text()};' if note.exists() else 'no checkpoint was'
                assert status == 1 and line.startswith('train.py: error: File too large: ') and kept in line, line
        after = whole_checkpoints(work)
        assert len(after) >= min(len(before), KEEP) and max(after, default=0) >= max(before, default=0)
        if not ended:
            self.counts[fault] += 1
            self.counts[f'{fault}: within a save'] += any(work.glob('*.pth.*.partial'))
            self.counts[f'{fault}: before a first checkpoint'] += not after
            print(f'{fault:9} {sum(losses(work).get(i, 0) > 0 for i in self.want):3} iterations {after}', flush=True)
        return not ended

    def compare(self, work: Path) -> None:
        got = losses(work)
        assert got.keys() == self.want.keys()
        self.counts['trainings finished'] += 1
        self.counts['losses compared'] += len(got)
        self.counts['losses that differ'] += sum(got[i] != self.want[i] for i in got)
        self.counts['files left behind'] += len([*work.glob('*.partial'), *work.glob('train.lock')])
        print(f'finished  {len(got)} losses, {sum(got[i] != self.want[i] for i in got)} differ', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument('--full-disks', type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        started = time.monotonic()
        study = Study(Path(root), args.seed)
        faults = ['kill'] * args.kills + ['full disk'] * args.full_disks
        study.rng.shuffle(faults)
        study.run(faults)
        print(f'\nseed {args.seed}, {time.monotonic() - started:.0f} s; no checkpoint was lost')
        for name in sorted(study.counts):
            print(f'{study.counts[name]:5}  {name}')
    sys.exit(study.counts['losses that differ'] + study.counts['files left behind'] > 0)


if __name__ == '__main__':
    main()
