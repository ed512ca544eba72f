import gc

import pytest

from fasternet_mm.engine.runner import load_config
from fasternet_mm.report import Subject, from_config

# a report collects garbage around each measurement: half a second each time, if it had to go through all of mmdet
gc.freeze()


@pytest.fixture
def detector(tiny_config) -> Subject:
    path = str(tiny_config())
    return from_config(load_config(path), path, None)


@pytest.fixture
def classifier(tiny_classifier_config) -> Subject:
    path = str(tiny_classifier_config)
    return from_config(load_config(path), path, None)
