"""Run a command line of ``tools/``, in this process or in one of its own."""

import io
import os
import runpy
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout

import torch
from mmengine.utils import ManagerMixin

from . import REPO


def run_tool(name: str, *args, check: bool = True, cwd=REPO, process: bool = False) -> subprocess.CompletedProcess:
    """Run ``tools/NAME ARGS``, by default in this process: a new one takes 8 seconds to import mmdet.

    Args:
        name (str): File name of the tool.
        *args: Its arguments; paths and numbers become text.
        check (bool): Whether the tool must end with status 0.
        cwd (path): Working directory.
        process (bool): Whether the tool gets a process of its own, as for a user.

    Returns:
        subprocess.CompletedProcess: The status, and what was written to ``sys.stdout`` and ``sys.stderr`` as text.
    """
    command = [sys.executable, str(REPO / 'tools' / name), *map(str, args)]
    if process:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=cwd)
    else:
        done = _run_here(command, cwd)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def _run_here(command: list[str], cwd) -> subprocess.CompletedProcess:
    status, stdout, stderr = 0, io.StringIO(), io.StringIO()
    with process_state(), chdir(cwd), redirect_stdout(stdout), redirect_stderr(stderr):
        sys.argv = command[1:]
        try:
            runpy.run_path(command[1], run_name='__main__')
        except SystemExit as end:  # as the interpreter ends on it
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                sys.stderr.write(f'{end.code}\n')
        except Exception:
            status = 1
            traceback.print_exc()
    return subprocess.CompletedProcess(command, status, stdout.getvalue(), stderr.getvalue())


def _managers(cls: type = ManagerMixin) -> Iterator[type]:
    for child in cls.__subclasses__():
        yield child
        yield from _managers(child)


@contextmanager
def process_state() -> Iterator[None]:
    """Give what runs inside a new process's state, as far as tools depend on it, and put the old one back."""
    argv, environ, threads = sys.argv, dict(os.environ), torch.get_num_threads()
    # loggers, message hubs, visualizers and default scopes
    instances = {manager: manager._instance_dict.copy() for manager in _managers()}
    for manager in instances:
        manager._instance_dict.clear()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for manager in _managers():
            for instance in manager._instance_dict.values():
                for handler in getattr(instance, 'handlers', ()):
                    handler.close()
            manager._instance_dict.clear()
            manager._instance_dict.update(instances.get(manager, {}))
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environ)
        torch.set_num_threads(threads)
