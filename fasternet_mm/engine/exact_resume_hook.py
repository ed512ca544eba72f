"""A resumed run that ends as the uninterrupted one would have ended."""

import random
from collections import Counter
from itertools import islice

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

_MODEL, _DATA = 0, 1  # two families of random numbers that never meet


def _seed_all(*key: int) -> None:
    """Seed Python, NumPy and torch (CUDA included) from `key`, by NumPy's SeedSequence."""
    words = np.random.SeedSequence(key).generate_state(4)
    np.random.seed(words)
    random.seed(words.tobytes())
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))


class _SeededFetch:
    """What torch's DataLoader calls for a batch (``dataset.__getitems__``): each sample with a seed of its own.

    The seed is a function of (seed, epoch, index), so a sample is augmented alike whichever process loads it and
    whatever was loaded before. It lives in the workers too; the epoch reaches them through shared memory.
    """

    def __init__(self, dataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._visits, self._visits_epoch = Counter(), 0

    def __call__(self, indices: list[int]) -> list:
        epoch = int(self.epoch)
        if epoch != self._visits_epoch:
            self._visits, self._visits_epoch = Counter(), epoch
        return [self._fetch(epoch, index) for index in indices]

    def _fetch(self, epoch: int, index: int):
        _seed_all(self.seed, _DATA, epoch, index, self._visits[index])
        self._visits[index] += 1  # an infinite sampler comes back to an index within its one epoch
        return self.dataset[index]


class _SkipOnce:
    """A batch sampler that leaves out its first `count` batches the first time it is iterated."""

    def __init__(self, batch_sampler, count: int) -> None:
        self._batch_sampler = batch_sampler
        self._count = count

    def __iter__(self):
        count, self._count = self._count, 0  # not before the first batch: the DataLoader asks for iterators in vain
        yield from islice(self._batch_sampler, count, None)

    def __len__(self) -> int:
        return len(self._batch_sampler)

    def __getattr__(self, name):
        return getattr(self._batch_sampler, name)


@HOOKS.register_module(force=True)
class ExactResumeHook(Hook):
    """Makes a run that was killed and resumed equal to one that was not, given the seed (``randomness.seed``, or
    the one mmengine drew and keeps in the checkpoint).

    mmengine's checkpoint holds no random state, and workers' states could not be saved anyway. So nothing depends on
    a state: before each iteration the model's random numbers (drop path, sampling of RoIs) are seeded from
    (seed, rank, iteration), and each sample's (augmentation) from (seed, epoch, index). Works with any number of
    workers, and from a checkpoint in the middle of an epoch: the batches it has seen are left out.

    With ``IterBasedTrainLoop`` mmengine starts the workers before any hook; their states repeat because mmengine
    itself loads again what was seen, which takes a ``randomness.seed`` in the config.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        loop, loader = runner.train_loop, runner.train_dataloader
        for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
            if hasattr(sampler, 'seed'):
                sampler.seed = runner.seed  # without a seed in the config, mmengine draws one for the sampler alone
        self._fetch = loader.dataset.__getitems__ = _SeededFetch(loader.dataset, runner.seed)

        seen = loop.iter - loop.epoch * len(loader) if isinstance(loop, EpochBasedTrainLoop) else 0
        if 0 < seen < len(loader):
            runner.logger.info(f'Resuming within epoch {loop.epoch + 1}: its first {seen} batches are left out.')
            # the DataLoader forbids this assignment, to protect iterators; there is none yet
            object.__setattr__(loader, 'batch_sampler', _SkipOnce(loader.batch_sampler, seen))

    def before_train_epoch(self, runner) -> None:
        self._fetch.epoch.fill_(runner.epoch)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        _seed_all(runner.seed, _MODEL, get_rank(), runner.iter)
