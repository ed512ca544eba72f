"""Look at all of the data that a config names, before a training does: classes, images, boxes, masks, ids."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse
import sys
from functools import partial
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
from rich.console import Console
from rich.progress import track

from fasternet_mm.doctor import check_data, write_config
from fasternet_mm.engine.cli import add_cfg_options, command_line
from fasternet_mm.engine.runner import load_config


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', nargs='?', help='config file whose data to look at')
    add('--fix', metavar='DIR', help='write annotation files without what can be mended into this folder')
    add('--out', metavar='DIR', help='write data.json, data.md and pictures into this folder')
    add_cfg_options(parser)
    add('--write-config', metavar='FILE.py', help='write a config for your own data, by the four options below')
    add('--base', metavar='CONFIG', help='what it inherits from: a path, or a mmdet:: or mmpretrain:: name')
    own_help = "an annotation file in COCO's format and its folder of images; a classifier's folder of folders"
    add('--train', nargs='+', metavar='PATH', help=own_help)
    add('--val', nargs='+', metavar='PATH', help='the same for validation')
    add('--batch-size', type=int, metavar='N', help="images of one process (default: the base's)")
    args = parser.parse_args(argv)
    own = [args.base, args.train, args.val]
    if bool(args.config) == bool(args.write_config):
        parser.error('give a config, or --write-config')
    if args.write_config and not all(own):
        parser.error('--write-config needs --base, --train and --val')
    if args.config and any([*own, args.batch_size]):
        parser.error('--base, --train, --val and --batch-size are for --write-config')
    if args.write_config and (args.fix or args.out or args.cfg_options):
        parser.error('--fix, --out and --cfg-options are for a config whose data to look at')
    if args.batch_size is not None and args.batch_size < 1:
        parser.error('--batch-size must be at least 1')
    return args


def main() -> None:
    args = parse_args()
    if args.write_config:
        print(write_config(Path(args.write_config), args.base, args.train, args.val, args.batch_size), end='')
        print(f'-> {args.write_config}')
        return
    console = Console(width=None if sys.stdout.isatty() else 160)  # a log is not a terminal of 80 columns
    cfg = load_config(args.config, args.cfg_options)
    bar = dict(description='images', console=console, transient=True, disable=not console.is_terminal)
    progress = partial(track, **bar)
    folders = [Path(folder) if folder else None for folder in (args.out, args.fix)]

    def say(what) -> None:  # a line that may be copied is not broken
        console.print(what, markup=False, highlight=False, soft_wrap=isinstance(what, str))

    sys.exit(not check_data(cfg, say, progress, *folders))


if __name__ == '__main__':
    with command_line():
        main()
