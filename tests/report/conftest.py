import pytest

from fasternet_mm.engine.runner import load_config
from fasternet_mm.report import Subject, from_config


@pytest.fixture
def detector(tiny_config) -> Subject:
    path = str(tiny_config())
    return from_config(load_config(path), path, None)


@pytest.fixture
def classifier(tiny_classifier_config) -> Subject:
    path = str(tiny_classifier_config)
    return from_config(load_config(path), path, None)
