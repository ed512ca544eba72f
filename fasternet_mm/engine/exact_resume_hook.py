"""A resumed run that ends as the uninterrupted one would have ended."""

import random

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

_MODEL, _DATA = 0, 1  # two families of random numbers that never meet


def _seed_all(*key: int) -> None:
    """Seed Python, NumPy and torch (CUDA included) from `key`, by NumPy's SeedSequence."""
    words = np.random.SeedSequence(key).generate_state(4)
    np.random.seed(words)
    random.seed(words.tobytes())
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))


class _Index(int):
    """An index of the data set that knows its place in the run: (pass over the data, position in it)."""

    def __new__(cls, index: int, place: tuple[int, int] | None = None):
        self = super().__new__(cls, index)
        self.place = place
        return self


class _PlacedBatches:
    """A batch sampler whose indices know their place, and whose first pass may leave out what was seen before."""

    def __init__(self, batch_sampler, first_pass: int, skip: int) -> None:
        self._batch_sampler = batch_sampler
        self._pass = first_pass
        self._skip = skip

    def __iter__(self):
        # nothing happens before the first batch is drawn: the DataLoader asks for iterators in vain
        number, skip = self._pass, self._skip
        self._pass, self._skip = number + 1, 0
        position = 0
        for count, batch in enumerate(self._batch_sampler):
            places = range(position, position + len(batch))
            position += len(batch)
            if count >= skip:
                yield [_Index(index, (number, place)) for index, place in zip(batch, places)]

    def __len__(self) -> int:
        return len(self._batch_sampler)

    def __getattr__(self, name):
        return getattr(self._batch_sampler, name)


class _SeededFetch:
    """What torch's DataLoader calls for a batch (``dataset.__getitems__``): each sample with a seed of its own.

    The seed is a function of (seed, rank, place), so a sample is augmented alike whichever worker loads it and
    whatever was loaded before.
    """

    def __init__(self, dataset, seed: int) -> None:
        self._dataset = dataset
        self._key = (seed, _DATA, get_rank())
        self._count = 0

    def __call__(self, indices: list[int]) -> list:
        return [self._fetch(index) for index in indices]

    def _fetch(self, index: int):
        # an iterator made before the hook could act hands out bare indices; it is in this process, so counting serves
        place = getattr(index, 'place', None) or (self._count,)
        self._count += 1
        _seed_all(*self._key, *place)
        return self._dataset[int(index)]


class ExactResumeHook(Hook):
    """Make a run that was killed and resumed equal to one that was not, given the seed (``randomness.seed``, or
    the one mmengine drew and keeps in the checkpoint).

    mmengine's checkpoint holds no random state, and workers' states could not be saved anyway. So nothing depends on
    a state: before each iteration the model's random numbers (drop path, sampling of RoIs) are seeded from
    (seed, rank, iteration), and each sample's (augmentation) from (seed, rank, epoch, position in the epoch). Works
    with any number of workers, and from a checkpoint in the middle of an epoch: the batches it has seen are left out
    (the log then counts what is left of that epoch from 1).

    With ``IterBasedTrainLoop`` mmengine starts the first workers before any hook; their states repeat because
    mmengine itself loads again what was seen, which takes a ``randomness.seed`` in the config.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        loop, loader = runner.train_loop, runner.train_dataloader
        seed = [runner.seed]
        broadcast_object_list(seed)  # with randomness.diff_rank_seed each process has its own
        for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
            if hasattr(sampler, 'seed'):
                sampler.seed = seed[0]  # without a seed in the config, mmengine draws one for the sampler alone
        skip = self._batches_seen(runner) if isinstance(loop, EpochBasedTrainLoop) else 0
        if skip:
            runner.logger.info(f'Resuming within epoch {loop.epoch + 1}: its first {skip} batches are left out.')
        if loader.batch_sampler is None:  # samples come one by one: left to the data set's own devices
            return
        if hasattr(loader.dataset, '__dict__'):  # a bare list draws nothing at random
            loader.dataset.__getitems__ = _SeededFetch(loader.dataset, runner.seed)
        # the DataLoader forbids this assignment to protect its iterators; those of this run are still to be made
        object.__setattr__(loader, 'batch_sampler', _PlacedBatches(loader.batch_sampler, loop.epoch, skip))

    def _batches_seen(self, runner) -> int:
        """Return how many batches of the current epoch the checkpoint has seen, if its epochs were as long as these."""
        length = len(runner.train_dataloader)
        before = runner.message_hub.runtime_info.get('batches_per_epoch', length)
        runner.message_hub.update_info('batches_per_epoch', length)
        seen = runner.iter - runner.epoch * length
        # all of them, where it was saved after the last iteration but before the epoch was counted
        return seen if before == length and 0 < seen <= length else 0

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        _seed_all(runner.seed, _MODEL, get_rank(), runner.iter)
