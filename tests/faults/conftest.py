import shutil
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from fasternet_mm.engine.runner import load_config
from tests.helpers.configs import write_tiny_config

from .line import train
from .runs import TinyRun


@pytest.fixture(scope='session')
def tiny_cfg(tmp_path_factory, sample) -> Config:
    return load_config(str(write_tiny_config(tmp_path_factory.mktemp('config'), sample)))


@pytest.fixture
def quick_runner(monkeypatch) -> None:
    """Spare a runner what takes it seconds and is no subject here: the config as text, versions, garbage collection."""
    monkeypatch.setattr(Config, 'pretty_text', '')
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('mmengine.dataset.base_dataset.gc', SimpleNamespace(collect=int))


@pytest.fixture
def tiny_run(tiny_cfg, sample, tmp_path, quick_runner) -> TinyRun:
    return TinyRun(tiny_cfg, sample, tmp_path / 'work')


@pytest.fixture
def damaged_run(tiny_cfg, sample, tmp_path, quick_runner) -> TinyRun:
    """A tiny run with data of its own."""
    return TinyRun(tiny_cfg, shutil.copytree(sample, tmp_path / 'data'), tmp_path / 'work')


@pytest.fixture(scope='session')
def trained(tmp_path_factory) -> dict:
    """A checkpoint's content after the first of two epochs."""
    folder = tmp_path_factory.mktemp('trained')
    train(folder, epochs=1)
    return torch.load(folder / 'epoch_1.pth')
