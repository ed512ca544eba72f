"""Report a model's accuracy, latency, throughput, memory, parameters and multiply-adds, measured together."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
import torch
from rich.console import Console

from fasternet_mm.engine.cli import add_cfg_options, command_line
from fasternet_mm.files import require_writable
from fasternet_mm.report import (
    DTYPES,
    MODES,
    SCOPES,
    TABLES,
    Limits,
    Options,
    compare,
    draw,
    load,
    run,
    select_device,
    terminal_tables,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('models', nargs='*', metavar='CONFIG [CKPT]', help='configs, each with its checkpoint if any; or timm://NAME')
    add('--out', help='folder for report.json, .md, .csv and pictures')
    add('--suite', choices=list(TABLES), help="the rows of one of the paper's tables, or today's peers")
    add('--only', nargs='+', default=[], metavar='ROW', help='rows of the suite, by name')
    add('--resume', action='store_true', help='go on with the suite whose report is in --out')
    add('--compare', nargs='+', metavar='REPORT', help='join reports of other days or machines; --out draws them')
    add('--with-paper', action='store_true', help="draw the paper's own panels of figures 7 and 8 beside them")
    add('--no-eval', action='store_true', help='leave accuracy out')
    add('--scope', nargs='+', choices=SCOPES, help='what to time (default: all that a model has)')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    shape_help = 'of random input (default: 800 1280, classifiers 224 224)'
    add('--shape', type=int, nargs=2, metavar=('H', 'W'), help=shape_help)
    add('--batch-size', type=int, nargs='+', metavar='N', help='(default: 1; classifiers 1 and 32)')
    add('--dtype', nargs='+', default=['fp32'], metavar='DTYPE', help=', '.join(DTYPES))
    add('--mode', nargs='+', metavar='MODE', help=f'{", ".join(MODES)} (default: eager; suites of networks: fused)')
    add('--channels-last', action='store_true')
    add('--warmup', type=float, default=Limits.warmup, help='most seconds of warm-up (default: %(default)s)')
    add('--min-seconds', type=float, default=Limits.min_seconds, help='least seconds of samples')
    add('--repeats', type=int, default=Limits.repeats, help='least number of samples')
    add('--threads', type=int, help="CPU threads (default: torch's own choice)")
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    if bool(args.models) + bool(args.suite) + bool(args.compare) != 1:
        parser.error('give configs, or --suite, or --compare')
    if (args.resume or args.only) and not args.suite:
        parser.error('--resume and --only are for a --suite')
    if args.with_paper and not (args.compare and args.out):
        parser.error('--with-paper is for the pictures of --compare, which --out FOLDER takes')
    if not args.compare and not args.out:
        parser.error('--out FOLDER says where the report goes')
    return args


def options_of(args: argparse.Namespace) -> Options:
    table = TABLES[args.suite] if args.suite else None
    return Options(
        device=select_device(args.device, args.threads),
        shape=tuple(args.shape) if args.shape else None,
        batch_sizes=args.batch_size,
        modes=args.mode or [table.mode if table else 'eager'],
        dtypes=args.dtype,
        channels_last=args.channels_last,
        scopes=args.scope or ([table.kind, *table.scopes] if table else None),
        evaluate=not args.no_eval,
        limits=Limits(args.warmup, args.min_seconds, args.repeats),
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.compare:
        reports = [load(path) for path in args.compare]
        text = compare(reports, args.compare)
        print(text)
        if args.out:
            require_writable(Path(args.out), f'--out {args.out}')
            Path(args.out, 'compare.md').write_text(text)
            print(
                f'written to {args.out}{os.sep}: compare.md', *draw(reports, Path(args.out), args.with_paper), sep=', '
            )
        return
    console = Console(width=None if sys.stdout.isatty() else 160)  # a log is not a terminal of 80 columns
    say = partial(console.print, markup=False)  # names may have brackets
    what = dict(models=args.models, cfg_options=args.cfg_options, suite_name=args.suite, only=args.only)
    report = run(options_of(args), Path(args.out), sys.argv, say, resume=args.resume, **what)
    console.print(terminal_tables(report))
    console.print(f'written to {args.out}{os.sep}: report.json, report.md, report.csv and pictures')
    if not report.complete:
        sys.exit(130)


if __name__ == '__main__':
    with command_line():
        main()
