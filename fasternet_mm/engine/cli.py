"""What the command lines share: options of mmdet's tools, and errors of one line."""

import argparse
import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.queues import Queue
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from mmengine.config import DictAction

from ..errors import UserError
from .faults import outside_fault
from .runner import LAUNCHERS


class ConfigOptions(DictAction):
    """Parse ``--cfg-options key=value ...`` as mmengine's DictAction does, with an error of argparse's kind."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            if '=' not in value:
                raise argparse.ArgumentError(self, f'expected key=value, but got {value!r}')
        super().__call__(parser, namespace, values, option_string)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, as mmdet's tools have it."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions, help='settings of the config to override, as key=value'
    )


def parse_run_args(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse what train.py and test.py have in common with mmdet's, besides what `parser` has of its own."""
    parser.add_argument('--work-dir', help='folder for logs and results (default: work_dirs/<config name>)')
    add_cfg_options(parser)
    parser.add_argument('--launcher', choices=list(LAUNCHERS), default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)  # old launchers pass it
    parser.add_argument('--traceback', action='store_true', help='show where an error of the config came from')
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


class Terminated(BaseException):
    """SIGTERM arrived: as KeyboardInterrupt, it ends what runs and lets it clean up."""


@contextmanager
def command_line() -> Iterator[None]:
    """End a tool's main with one line on stderr where something outside the program is wrong.

    A UserError, a full disk, memory that ran out and the like give status 1; Ctrl-C gives 130, and SIGTERM 143, after
    the files at hand are in order. An error's notes are part of the line. Distributed processes end together.
    """
    tool = Path(sys.argv[0]).name
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # as tools have it while they import
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            _terminable(),
            _replaced(Queue, '_on_queue_feeder_error', staticmethod(_end_worker)),
            _replaced(logging.Handler, 'handleError', _end_log),
            _replaced(sys, 'excepthook', _show),
        ):
            _require_unicode()
            yield
            if torch.distributed.is_initialized():
                torch.distributed.barrier()
                torch.distributed.destroy_process_group()
    except KeyboardInterrupt as error:
        _say(f'{tool}: interrupted', error)
        sys.exit(130)
    except Terminated as error:
        _say(f'{tool}: terminated', error)
        sys.exit(143)
    except UserError as error:
        if '--traceback' in sys.argv:
            raise
        _say(f'{tool}: error: {error}', error)
        sys.exit(1)
    except Exception as error:
        fault = outside_fault(error)
        if fault is None:
            raise
        _say(f'{tool}: error: {fault}', error)
        sys.exit(1)


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise Terminated on SIGTERM; left to torchrun where it started this process, for it ends all of them."""
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        yield
        return

    def terminate(number, frame):
        signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise: the data loader's workers end, too
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _replaced(owner: Any, name: str, function: Callable) -> Iterator[None]:
    before = vars(owner)[name]
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _end_worker(error: Exception, batch) -> None:
    """End a data loader's worker that cannot hand over a batch, as where /dev/shm is full: torch would wait forever.

    multiprocessing prints a traceback instead, and goes on.
    """
    if multiprocessing.parent_process() is not None:
        print(f'DataLoader worker: {error}', file=sys.stderr, flush=True)
        os._exit(1)
    traceback.print_exception(error)


def _end_log(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Raise what keeps a line of the log from being written, as a full disk: logging prints a traceback for each."""
    error = sys.exception()
    if isinstance(error, OSError) and outside_fault(error):
        error.filename = getattr(handler, 'baseFilename', None)
        raise error
    traceback.print_exception(error)


def _show(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Show an error, but not that a data loader's worker has nobody to answer any more: the tool has ended."""
    if multiprocessing.parent_process() is None or not isinstance(error, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, where)


def _require_unicode() -> None:
    """Raise UserError for a path that mmengine's logs and config files could not name."""
    for text in (*sys.argv, os.getcwd()):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f'{text} is not valid UTF-8; rename the file or folder') from error


def _say(text: str, error: BaseException) -> None:
    """Print one line on stderr, with the error's notes; control characters are escaped."""
    # the traceback of a data loader's worker is for --traceback
    notes = [note for note in getattr(error, '__notes__', ()) if 'Traceback (most recent call last)' not in note]
    line = ' '.join('; '.join([text, *notes]).split())
    with suppress(OSError, ValueError):  # it may be closed
        sys.stdout.flush()  # so that the error is last where both go to one file
    print(''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)
