"""A tiny run whose config a test changes, without a process and without training, and a disk that is full."""

import copy
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from fasternet_mm.engine.preflight import check_config
from fasternet_mm.engine.rehearsal import prepare_runner
from fasternet_mm.errors import UserError


class TinyRun:
    """The tiny config, on data that a test may damage."""

    def __init__(self, cfg: Config, root: Path, work_dir: Path) -> None:
        self.root = root
        self.cfg = copy.deepcopy(cfg)
        self.cfg.work_dir = str(work_dir)
        for split in ('train', 'val', 'test'):
            self.cfg[f'{split}_dataloader'].dataset.data_root = f'{root}/'
        for split in ('val', 'test'):
            self.cfg[f'{split}_evaluator'].ann_file = f'{root}/annotations/instances_val.json'

    def changed(self, **settings) -> Config:
        """The config with other settings, ``__`` in a name for a dot."""
        cfg = copy.deepcopy(self.cfg)
        cfg.merge_from_dict({name.replace('__', '.'): value for name, value in settings.items()})
        return cfg

    def prepare(self, phase: str = 'train', **settings) -> Runner:
        cfg = self.changed(**settings)
        check_config(cfg, phase)
        return prepare_runner(cfg, phase)

    def error(self, phase: str = 'train', **settings) -> str:
        """The error that preparing the run with these settings ends in, which is one line for the user."""
        with pytest.raises(UserError) as error:
            self.prepare(phase, **settings)
        assert '\n' not in str(error.value).strip()
        return str(error.value)


@contextmanager
def full_disk(size: int):
    """No file grows beyond `size` bytes; where a disk is full, the same calls fail in the same way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
