"""What pip installs."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import fasternet_mm
from tests.helpers import REPO


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    # from a copy: building writes into the tree, and tests run in parallel
    ignored = shutil.ignore_patterns('.*', 'build', 'data', 'work_dirs', '*.egg-info')
    source = shutil.copytree(REPO, folder / 'source', ignore=ignored)
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', folder, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = folder.glob('*.whl')
    return path


def test_the_wheel_carries_configs_and_tools(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ('configs', 'tools'):
        for source in (path for kind in ('*.py', '*.yml') for path in (REPO / folder).rglob(kind)):
            assert f'fasternet_mm/.mim/{source.relative_to(REPO)}' in names
    assert not [name for name in names if name.startswith(('tests', 'configs', 'tools'))]


def test_installing_never_replaces_a_compiled_mmcv(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(n for n in archive.namelist() if n.endswith('METADATA'))).decode()
    requires = re.findall(r'Requires-Dist: (.*)', metadata)
    assert not [r for r in requires if r.startswith('mmcv') and 'extra ==' not in r]
    assert [r for r in requires if r.startswith('mmcv-lite') and 'lite' in r.split(';')[1]]
    assert f'Version: {fasternet_mm.__version__}' in metadata


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


@pytest.mark.parametrize('case', CASES)
def test_an_installed_wheel_serves_outside_the_repository(wheel, tmp_path, case):
    site, cwd = tmp_path / 'site', tmp_path / 'elsewhere'
    cwd.mkdir()
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', site, wheel], check=True)
    code, answer = CASES[case]
    code = f'import fasternet_mm, pathlib\nprint(fasternet_mm.__file__)\n{code}'
    env = dict(os.environ, PYTHONPATH=str(site))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=cwd, env=env)
    assert done.stdout.startswith(str(site)) and answer in done.stdout, done.stderr[-2000:]


@pytest.mark.skipif('CI' not in os.environ, reason='the pinned set is promised where CI runs')
def test_ci_runs_the_pinned_set():
    from importlib.metadata import version

    pins = dict(re.findall(r'^([\w-]+)==([\w.]+)', (REPO / 'requirements' / 'tested.txt').read_text(), re.M))
    assert {name: version(name).split('+')[0] for name in pins} == pins
