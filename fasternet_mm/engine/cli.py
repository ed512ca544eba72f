"""What the command lines share: options of mmdet's tools, and errors of one line."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import DictAction

from ..errors import UserError
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


@contextmanager
def command_line() -> Iterator[None]:
    """Turn a UserError and Ctrl-C within a tool's main into one line on stderr; end distributed processes together."""
    try:
        yield
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    except UserError as error:
        if '--traceback' in sys.argv:
            raise
        sys.exit(f'{Path(sys.argv[0]).name}: error: {" ".join(str(error).split())}')
    except KeyboardInterrupt:
        print(f'{Path(sys.argv[0]).name}: interrupted', file=sys.stderr)
        sys.exit(130)
