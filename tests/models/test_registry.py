"""Every spelling of the name, from every scope, after nothing but custom_imports."""

import itertools
import subprocess
import sys

import pytest
from mmengine.registry import DefaultScope, Registry

from tests.helpers import HAS_MMSEG, REPO

LIBRARIES = ('mmdet', 'mmpretrain', *(['mmseg'] if HAS_MMSEG else []))
SCOPES = ('mmengine', *LIBRARIES)
NAMES = ('FasterNet', *(f'{library}.FasterNet' for library in LIBRARIES))


def registry_of(scope: str) -> Registry:
    module = __import__(f'{scope}.registry', fromlist=['MODELS'])
    return module.MODELS


@pytest.mark.parametrize(('scope', 'name'), [*itertools.product(SCOPES, NAMES)])
def test_builds_from_every_registry(scope, name, tiny):
    assert type(registry_of(scope).build(dict(type=name, **tiny))).__name__ == 'FasterNet'


@pytest.mark.parametrize(('scope', 'name'), [*itertools.product(SCOPES, NAMES)])
def test_builds_in_every_default_scope(scope, name, tiny):
    with DefaultScope.overwrite_default_scope(scope):
        assert type(registry_of('mmengine').build(dict(type=name, **tiny))).__name__ == 'FasterNet'


CASES = {
    'by custom_imports alone': """
from mmengine.config import Config
cfg = Config.fromstring("custom_imports = dict(imports=['fasternet_mm'], allow_failed_imports=False)", '.py')
from mmdet.registry import MODELS
""",
    'imported twice': """
import importlib, fasternet_mm
importlib.reload(fasternet_mm)
import fasternet_mm
from mmdet.registry import MODELS
import mmdet.apis, mmdet.datasets, mmdet.evaluation
""",
    'after mmdet.models, which mmcv-lite cannot import before': """
try:
    import mmdet.models
except ModuleNotFoundError as error:
    assert 'mmcv._ext' in str(error), error
import fasternet_mm
import mmdet.models
from mmdet.registry import MODELS
""",
}


def test_one_import_is_all_that_a_shipped_config_needs():
    code = f"""
from mmengine.config import Config
from mmengine.registry import HOOKS
cfg = Config.fromfile({str(REPO / 'configs' / 'mask_rcnn_fasternet_s.py')!r})
hooks = [*cfg.custom_hooks, cfg.default_hooks.checkpoint]
print(sorted(HOOKS.get(hook.type).__name__ for hook in hooks))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    want = ['AtomicCheckpointHook', 'ExactResumeHook', 'FiniteLossHook', 'SyncBuffersHook']
    assert done.stdout.strip() == str(want), done.stderr[-2000:]


@pytest.mark.parametrize('case', CASES)
def test_import_order_is_harmless(case):
    code = CASES[case] + "\nprint(type(MODELS.build(dict(type='FasterNet', arch='t0'))).__name__)"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip().endswith('FasterNet'), done.stderr[-2000:]
