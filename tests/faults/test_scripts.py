"""The shell scripts install into an environment of the project's, or end with one true line.

Nothing is installed here.
"""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

import pytest

from tests.helpers import REPO

PYTHON = sys.version_info[:2]
BASE = os.path.realpath(sysconfig.get_config_var('BINDIR') + f'/python{PYTHON[0]}.{PYTHON[1]}')  # of no environment
SETUP = """-c ". tools/setup_env.sh ''\""""  # what both scripts begin with


@pytest.fixture
def clone(tmp_path) -> Path:
    """What the scripts need of the repository, and a pip that only notes for which interpreter it was called."""
    root = tmp_path / 'clone'
    for name in ('tools', 'requirements'):
        shutil.copytree(REPO / name, root / name)
    for name in ('setup.py', 'pyproject.toml', 'fasternet_mm/version.py'):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, root / name)
    (tmp_path / 'stub' / 'pip').mkdir(parents=True)
    note = "import sys\nwith open(__file__ + '.calls', 'a') as file:\n    print(sys.prefix, file=file)\n"
    (tmp_path / 'stub' / 'pip' / '__main__.py').write_text(note)
    return root


def stub(path: Path, version: tuple[int, int]) -> Path:
    """Write an interpreter that can tell its version, and that its environment is its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\ncase "$2" in *version_info*) echo Python {version[0]}.{version[1]}.7 ;; esac\n')
    path.chmod(0o755)
    return path


def run(clone: Path, script: str = 'tools/quickstart.sh', user: int | None = None, **environ) -> tuple:
    """Run a script that reaches the stubs and the system's commands alone; returns it and where pip would install."""
    stubs = clone.parent / 'stub'
    environ = dict(PATH=f'{stubs}:/usr/bin:/bin', PYTHONPATH=str(stubs), HOME='/nowhere') | environ
    command = ['bash', *shlex.split(script)]
    done = subprocess.run(command, cwd=clone, env=environ, capture_output=True, text=True, timeout=60, user=user)
    calls = stubs / 'pip' / '__main__.py.calls'
    return done, set(calls.read_text().split()) if calls.exists() else set()


def error_of(clone: Path, *args, **environ) -> str:
    """The one line that a script ends with, before it calls pip."""
    done, pip_calls = run(clone, *args, **environ)
    assert done.returncode == 1, done.stdout + done.stderr
    assert not pip_calls
    (line,) = done.stderr.splitlines()
    return line


def environment(path: Path) -> Path:
    venv.create(path, symlinks=True, with_pip=False)
    (path / 'bin' / 'pip').touch()
    return path


def test_packages_go_into_the_environment_of_the_folder(clone):
    env = environment(clone / '.venv')
    done, pip_calls = run(clone, SETUP)
    assert (done.returncode, done.stderr, pip_calls) == (0, '', {str(env)})


@pytest.mark.parametrize('linked', [False, True])
def test_packages_go_into_the_active_environment(clone, tmp_path, linked):
    env = environment(tmp_path / 'env')
    if linked:
        env = tmp_path / 'link'
        env.symlink_to(tmp_path / 'env')
    done, pip_calls = run(clone, SETUP, VIRTUAL_ENV=str(env))
    assert (done.returncode, done.stderr) == (0, '')
    assert {os.path.realpath(prefix) for prefix in pip_calls} == {str(tmp_path / 'env')}


@pytest.mark.parametrize('script', ['tools/quickstart.sh', 'tools/run_tests.sh', 'tools/run_tests.sh --oldest'])
def test_an_environment_whose_python_dangles(clone, script):
    env = clone / ('.venv-oldest' if 'oldest' in script else '.venv')
    (env / 'bin').mkdir(parents=True)
    (env / 'bin' / 'pip').touch()
    (env / 'bin' / 'python').symlink_to('/nowhere/python3')
    stub(clone.parent / 'stub' / 'python', (3, 11))  # what PATH has instead
    assert error_of(clone, script) == f'error: {env} has no python that runs; remove it and run this again'


def test_an_active_environment_that_is_gone(clone):
    stub(clone.parent / 'stub' / 'python', (3, 11))
    line = error_of(clone, VIRTUAL_ENV='/nowhere/env')
    assert line == 'error: /nowhere/env has no python that runs; deactivate it (unset VIRTUAL_ENV), or make it anew'


@pytest.mark.skipif(PYTHON not in {(3, 11), (3, 12)}, reason='the scripts refuse this Python')
@pytest.mark.parametrize('active', [False, True])
def test_an_environment_whose_python_is_the_systems(clone, active):
    env = clone / '.venv'
    (env / 'bin').mkdir(parents=True)
    (env / 'bin' / 'pip').touch()
    (env / 'bin' / 'python').symlink_to(BASE)
    line = error_of(clone, **(dict(VIRTUAL_ENV=str(env)) if active else {}))
    assert line.startswith(f"error: {env}/bin/python is not that environment's own; ")


@pytest.mark.parametrize('active', [False, True])
def test_an_environment_of_another_version(clone, active):
    stub(clone / '.venv' / 'bin' / 'python', (3, 10))
    (clone / '.venv' / 'bin' / 'pip').touch()
    line = error_of(clone, **(dict(VIRTUAL_ENV=str(clone / '.venv')) if active else {}))
    assert line.startswith(f'error: Python 3.11 or 3.12 is needed, and {clone}/.venv has Python 3.10.7; ')


def test_a_python_of_another_version(clone, tmp_path):
    stub(tmp_path / 'stub' / 'python3.11', (3, 11))
    old = stub(tmp_path / 'old', (3, 10))
    needed = 'error: Python 3.11 or 3.12 is needed, and'
    assert error_of(clone, PYTHON=str(old)) == f'{needed} PYTHON={old} is Python 3.10.7'
    assert error_of(clone, PYTHON='/nowhere') == f'{needed} PYTHON=/nowhere is none that runs'
    assert not (clone / '.venv').exists()


def test_no_python_that_fits(clone, tmp_path):
    for name in ('python3', 'python3.11', 'python3.12'):  # whatever the system has
        stub(tmp_path / 'stub' / name, (3, 9))
    assert error_of(clone) == 'error: Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python'


def test_a_folder_that_cannot_be_written(clone, tmp_path):
    with tempfile.TemporaryDirectory() as folder:  # one that another user can see
        shutil.copytree(clone, Path(folder, 'clone'))
        python = stub(Path(folder, 'python'), (3, 11))
        for path in (folder, f'{folder}/clone'):
            os.chmod(path, 0o555)
        user = 65534 if os.geteuid() == 0 else None  # root can write everywhere
        line = error_of(Path(folder, 'clone'), 'tools/quickstart.sh', user, PYTHON=str(python))
        assert line == f'error: cannot write to {folder}/clone/.venv'
        os.chmod(f'{folder}/clone', 0o755)


@pytest.mark.parametrize('processes', ['0', '-1', 'two', '1.5', ''])
def test_a_number_of_processes_that_cannot_be(processes):
    for command in (['dist_train.sh', 'config.py'], ['dist_test.sh', 'config.py', 'x.pth']):
        script = str(REPO / 'tools' / command[0])
        done = subprocess.run([script, *command[1:], processes], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr == f"{script}: error: NUM_PROCESSES must be 1 or more, but is '{processes}'\n"


def test_a_port_that_is_in_use():
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
        script = str(REPO / 'tools' / 'dist_train.sh')
        environ = os.environ | dict(PORT=str(port))
        done = subprocess.run([script, 'config.py', '2'], capture_output=True, text=True, env=environ)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f'{script}: error: port {port} is in use, by another run perhaps; choose another: PORT='
    )
    assert done.stderr.count('\n') == 1
