"""Tools in processes of their own, to be killed, interrupted and starved of disk: forked, so that mmdet loads once."""

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.helpers import REPO

_SERVER = multiprocessing.get_context('forkserver')


class Tool:
    """A tool of ``tools/`` that runs in a process group of its own.

    Args:
        name (str): File name of the tool.
        *args: Its arguments.
        log (Path): Takes what it writes to stdout and stderr.
        file_size (int, optional): Limit in bytes of every file that it writes: what a full disk looks like to it.
        **environ: Environment variables, such as ``RANK``.
    """

    def __init__(self, name: str, *args, log: Path, file_size: int | None = None, **environ: str) -> None:
        hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # of the server, which the first process starts
        _SERVER.set_forkserver_preload(['fasternet_mm', 'mmdet.apis', 'tests.faults.processes'])
        self._log = log
        log.write_text('')
        self._process = _SERVER.Process(target=_run, args=(name, list(map(str, args)), str(log), file_size, environ))
        self._process.start()
        if hidden is None:
            del os.environ['CUDA_VISIBLE_DEVICES']
        else:
            os.environ['CUDA_VISIBLE_DEVICES'] = hidden

    @property
    def text(self) -> str:
        return self._log.read_text()

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.alive, f'it ended before: {self.text[-3000:]}'
            assert time.monotonic() < deadline, f'never happened: {self.text[-3000:]}'
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """End it and its workers, if need be."""
        if self.alive:
            with suppress(ProcessLookupError):  # it has no group yet, or ended this moment
                self.signal(signal.SIGKILL)
            self._process.kill()
        self._process.join()

    def signal(self, number: int) -> None:
        """Send a signal to it and its workers, as Ctrl-C in a terminal does."""
        os.killpg(self.pid, number)

    def wait(self, seconds: float = 120) -> int:
        """Return its status as a shell has it, or minus the signal that ended it."""
        self._process.join(seconds)
        if self.alive:
            self.kill()
            raise AssertionError(f'still running after {seconds} s: {self.text[-3000:]}')
        return self._process.exitcode


def _run(name: str, args: list[str], log: str, file_size: int | None, environ: dict[str, str]) -> None:
    os.setsid()
    os.environ.update(environ)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the server ignores
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(REPO)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.argv = [str(REPO / 'tools' / name), *args]
    runpy.run_path(sys.argv[0], run_name='__main__')
