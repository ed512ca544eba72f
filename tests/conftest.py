import gc
import multiprocessing
import os
import shutil
from functools import cache, partial
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

os.environ.setdefault('OMP_NUM_THREADS', '1')  # tests run in parallel, and so do the processes they start
torch.set_num_threads(1)

import fasternet_mm  # noqa: E402, F401

# isort: split
import mmengine.config.utils  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402

from .helpers import CLASSES, REPO, SHARED  # noqa: E402
from .helpers.configs import write_tiny_config  # noqa: E402
from .helpers.logs import logged  # noqa: E402
from .helpers.made_set import MadeSet  # noqa: E402
from .helpers.tools import run_tool  # noqa: E402

# for each base of mmdet or mmpretrain a config reads all of their metafiles again: 0.4 of its 0.5 seconds
mmengine.config.utils.load = cache(mmengine.config.utils.load)


@pytest.fixture
def log():
    """The text of each line that mmengine's logger writes meanwhile."""
    with logged() as lines:
        yield lines


@pytest.fixture(autouse=True)
def loaders_end_with_their_test():
    """End the workers of data loaders that are no longer used.

    The garbage collector cannot tell them to end, since it takes a loader's queues first, and waits 5 seconds for each.
    """
    yield
    if multiprocessing.active_children():
        for loader in [each for each in gc.get_objects() if type(each) is _MultiProcessingDataLoaderIter]:
            loader._shutdown_workers()


@pytest.fixture
def mmpretrain_scope():
    """Names are mmpretrain's, whatever scope a test before has left behind."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def tiny():
    """Arguments of a FasterNet that costs nothing."""
    return dict(arch=dict(embed_dims=8, depths=(1, 1, 1, 1), act_cfg=dict(type='ReLU')))


@pytest.fixture
def tiny_classifier(tiny):
    """Config of an ImageClassifier of three classes that costs nothing."""
    return dict(
        type='ImageClassifier',
        backbone=dict(type='FasterNet', **tiny),
        head=dict(type='FasterNetClsHead', num_classes=3, in_channels=64, hidden_channels=16),
    )


@pytest.fixture(scope='session')
def sample(tmp_path_factory) -> Path:
    """A small generated data set."""
    from fasternet_mm.datasets import generate_shapes

    return generate_shapes(tmp_path_factory.mktemp('sample'), num_train=12, num_val=4, size=64)


@pytest.fixture(scope='session')
def image_folder(tmp_path_factory) -> Path:
    """Three classes of four images, each class of its own colour: ``train/<class>/<n>.png``, and ``val`` the same."""
    root = tmp_path_factory.mktemp('folder')
    rng = np.random.RandomState(0)
    for split in ('train', 'val'):
        for channel, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                picture = rng.randint(0, 100, (80, 96, 3), np.uint8)
                picture[..., channel] += 150
                mmcv.imwrite(picture, str(root / split / name / f'{number}.png'))
    return root


@pytest.fixture(scope='session')
def shared_data() -> Path:
    if not (SHARED / 'data').is_dir():
        pytest.skip('the 64 real images of ../shared/data are not here; they are not part of the repository')
    return SHARED / 'data'


@pytest.fixture(scope='session', name='run_tool')
def run_tool_fixture():
    return run_tool


@pytest.fixture
def tiny_classifier_config(tmp_path):
    """The path of a config on ours of ImageNet, shrunk to run in seconds."""
    path = tmp_path / 'classifier.py'
    path.write_text(
        f'_base_ = {str(REPO / "configs" / "fasternet_t0_in1k.py")!r}\n'
        'model = dict(backbone=dict(arch=dict(_delete_=True, embed_dims=8, depths=(1, 1, 1, 1))),\n'
        '             head=dict(in_channels=64, hidden_channels=16), train_cfg=None)\n'
    )
    return path


@pytest.fixture
def tiny_config(tmp_path, sample):
    """Write a config on the shipped sample config, shrunk to run in seconds; returns its path."""
    return partial(write_tiny_config, tmp_path, sample)


@pytest.fixture
def made(tmp_path, sample) -> MadeSet:
    """A copy of the sample set, with a config that trains on it, for a test to break."""
    root = shutil.copytree(sample, tmp_path / 'data')
    return MadeSet(root, write_tiny_config(tmp_path, root))


@pytest.fixture(scope='session')
def trained_detector(tmp_path_factory, sample) -> tuple[Path, Path]:
    """A tiny config and its checkpoint after an epoch, for all tests: with a ``--work-dir`` of the test's own."""
    folder = tmp_path_factory.mktemp('trained_detector')
    config = write_tiny_config(folder, sample, epochs=1)
    run_tool('train.py', config)
    return config, folder / 'work' / 'epoch_1.pth'
