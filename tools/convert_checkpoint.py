"""Rewrite a FasterNet checkpoint in the layout of mm (mmdet and mmpretrain), the official code, or timm."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse

from fasternet_mm.checkpoint import LAYOUTS, convert_checkpoint
from fasternet_mm.engine.cli import command_line
from fasternet_mm.files import require_output


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help="checkpoint file, URL, or fasternet://NAME for one of the authors' files")
    parser.add_argument('dst', help='file to write: .pth, or .safetensors for the tensors alone')
    parser.add_argument('--to', choices=LAYOUTS, required=True, help='layout to write; that of SRC is recognised')
    parser.add_argument(
        '--strip-optimizer', action='store_true', help="leave out the optimizer's state, schedules and logged values"
    )
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    require_output(args.dst, 'DST')
    before, after, digest = convert_checkpoint(**vars(args))
    print(f'{args.src}: {before} -> {args.dst}: {after}\nsha256 {digest}')


if __name__ == '__main__':
    with command_line():
        main()
