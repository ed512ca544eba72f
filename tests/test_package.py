"""What pip installs."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import fasternet_mm
from tests.helpers import REPO


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Built from the source package, so that this has what it takes."""
    folder = tmp_path_factory.mktemp('wheel')
    # from a copy: building writes into the tree, and tests run in parallel
    ignored = shutil.ignore_patterns('.*', 'build', 'data', 'work_dirs', '*.egg-info')
    source = shutil.copytree(REPO, folder / 'source', ignore=ignored)
    code = f'from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})'
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, cwd=source)
    (package,) = folder.glob('*.tar.gz')
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', folder, package]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = folder.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def metadata(wheel) -> Message:
    archive = zipfile.ZipFile(wheel)
    return message_from_bytes(archive.read(next(name for name in archive.namelist() if name.endswith('METADATA'))))


def test_the_wheel_carries_configs_and_tools(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ('configs', 'tools'):
        for source in (path for kind in ('*.py', '*.yml') for path in (REPO / folder).rglob(kind)):
            assert f'fasternet_mm/.mim/{source.relative_to(REPO)}' in names
    assert not [name for name in names if name.startswith(('tests', 'configs', 'tools'))]
    assert 'fasternet_mm/py.typed' in names


def test_installing_never_replaces_a_compiled_mmcv(metadata):
    requires = metadata.get_all('Requires-Dist')
    assert not [r for r in requires if r.startswith('mmcv') and 'extra ==' not in r]
    assert [r for r in requires if r.startswith('mmcv-lite') and 'lite' in r.split(';')[1]]


def test_metadata_says_what_the_package_says(metadata):
    assert metadata['Version'] == fasternet_mm.__version__
    assert metadata['Description-Content-Type'] == 'text/markdown'
    text = metadata.get_payload()
    assert text.startswith('# ') and not re.search(r'\]\((?!https?:)', text)  # an index has no files to link to


def test_lower_bounds_are_what_the_oldest_set_has(metadata):
    requires = map(Requirement, metadata.get_all('Requires-Dist'))
    bounds = [(r.name, limit.version) for r in requires for limit in r.specifier if limit.operator == '>=']
    assert {'torch', 'torchvision', 'mmengine', 'mmcv-lite', 'numpy'} <= {name for name, _ in bounds}
    pins = pinned('oldest') | pinned('mmcv-lite')
    assert [Version(pins[name]) for name, _ in bounds] == [Version(bound) for _, bound in bounds]


CASES = {
    'a detection config': (
        'from mmengine.config import Config\n'
        'root = pathlib.Path(fasternet_mm.__file__).parent / ".mim/configs"\n'
        'print(Config.fromfile(root / "mask_rcnn_fasternet_s.py").model.backbone)',
        "'arch': 's'",
    ),
    "mmpretrain's model zoo": (
        'import numpy, mmpretrain\n'
        'model = mmpretrain.get_model(mmpretrain.list_models("fasternet-t0*")[0])\n'
        'print(mmpretrain.inference_model(model, numpy.zeros((64, 64, 3), numpy.uint8))["pred_scores"].shape)',
        '(1000,)',
    ),
}


@pytest.fixture(scope='module')
def site(wheel):
    site = wheel.parent / 'site'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', site, wheel], check=True)
    return site


@pytest.mark.parametrize('case', CASES)
def test_an_installed_wheel_serves_outside_the_repository(site, tmp_path, case):
    code, answer = CASES[case]
    code = f'import fasternet_mm, pathlib\nprint(fasternet_mm.__file__)\n{code}'
    env = dict(os.environ, PYTHONPATH=str(site))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.stdout.startswith(str(site)) and answer in done.stdout, done.stderr[-2000:]


def pinned(name: str) -> dict[str, str]:
    """The versions in ``requirements/NAME.txt``."""
    return dict(re.findall(r'^([\w-]+)==([\w.]+)', (REPO / 'requirements' / f'{name}.txt').read_text(), re.M))


@pytest.mark.skipif('CI' not in os.environ, reason='the pinned set is promised where CI runs')
def test_ci_runs_the_pinned_set():
    pins = pinned('tested')
    assert {name: version(name).split('+')[0] for name in pins} == pins
