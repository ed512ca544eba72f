"""A training of one layer that takes milliseconds, and the checkpoints that it writes."""

import itertools
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner

from fasternet_mm.engine.runner import FittingCheckpointHook

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


def saved(folder: Path, content) -> Path:
    torch.save(content, folder / 'given.pth')
    return folder / 'given.pth'


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))
