"""What each sample and each iteration draws at random, seen from inside."""

import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import Dataset


class Draws(Dataset):
    """A sample is its index, and what three generators draw while it is loaded."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


@DATA_SAMPLERS.register_module(force=True)
class WithReplacement:
    """Comes back to an index within an epoch."""

    def __init__(self, dataset, seed=None):
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 8

    def __iter__(self):
        return iter(np.random.default_rng(self.epoch).integers(0, 4, 8).tolist())


class Recorder(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, *inputs, mode='loss'):
        self.seen += [tuple(sample.tolist()) for sample in inputs]
        self.seen.append(('model', torch.rand(()).item()))
        return dict(loss=self.weight.sum())


def run(work_dir, loop, sampler='DefaultSampler', num_workers=0, resume=None, batch_size=2, persistent=True):
    iterations = loop.get('by_epoch') is False
    runner = Runner(
        Recorder(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Draws(),
            batch_size=batch_size,
            num_workers=num_workers,
            persistent_workers=persistent and num_workers > 0,
            sampler=dict(type=sampler),
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='AtomicCheckpointHook', interval=1, by_epoch=False),
            logger=dict(type='LoggerHook', interval=1000),
        ),
        log_processor=dict(by_epoch=not iterations),
        custom_hooks=[dict(type='ExactResumeHook')],
        randomness=dict(seed=3),
        load_from=resume and str(resume),
        resume=resume is not None,
        experiment_name=str(work_dir),
        cfg=Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))),
    )
    runner.train()
    # workers end at once; the garbage collector, which comes when it comes, would wait five seconds for each
    runner.train_loop.dataloader_iterator = runner.train_dataloader._iterator = None
    return runner.model.seen


EPOCHS = dict(by_epoch=True, max_epochs=3)
ITERATIONS = dict(by_epoch=False, max_iters=12)


def by_index(seen) -> dict:
    found = {}
    for sample in seen:
        if sample[0] != 'model':
            found.setdefault(sample[0], []).append(sample[1:])
    return found


@pytest.mark.parametrize('persistent', [True, False])
@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('loop', [EPOCHS, ITERATIONS], ids=['epochs', 'iterations'])
def test_a_sample_is_augmented_anew_on_every_pass(tmp_path, loop, num_workers, persistent):
    draws = by_index(run(tmp_path, dict(loop), num_workers=num_workers, persistent=persistent))
    assert len(draws) == 8
    for values in draws.values():
        assert len(values) == len(set(values)) == 3


def test_the_number_of_workers_changes_nothing(tmp_path):
    assert run(tmp_path / '0', dict(EPOCHS)) == run(tmp_path / '2', dict(EPOCHS), num_workers=2)


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('sampler', ['DefaultSampler', 'WithReplacement'])
@pytest.mark.parametrize('at', [4, 5, 7])
def test_from_any_iteration_the_rest_is_the_same(tmp_path, sampler, num_workers, at):
    straight = run(tmp_path / 'straight', dict(EPOCHS), sampler, num_workers)
    resumed = run(tmp_path / 'resumed', dict(EPOCHS), sampler, num_workers, tmp_path / 'straight' / f'iter_{at}.pth')
    assert len(straight) == 12 * 3 and resumed == straight[at * 3 :]  # per iteration two samples and one draw


def test_with_another_batch_size_no_batch_is_left_out(tmp_path):
    run(tmp_path / 'before', dict(EPOCHS))
    seen = run(tmp_path / 'after', dict(EPOCHS), batch_size=3, resume=tmp_path / 'before' / 'iter_8.pth')
    assert sorted(by_index(seen)) == list(range(8))
