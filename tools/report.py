"""Report a model's accuracy, latency, throughput, memory, parameters and multiply-adds, measured together."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
import torch
from rich.console import Console

from fasternet_mm.checkpoint import require_source
from fasternet_mm.engine.cli import add_cfg_options, command_line
from fasternet_mm.engine.runner import load_config
from fasternet_mm.errors import UserError
from fasternet_mm.files import require_writable
from fasternet_mm.report import (
    DTYPES,
    MODES,
    SCOPES,
    Limits,
    Options,
    Reporter,
    Subject,
    check_continues,
    check_evaluation,
    compare,
    from_config,
    from_timm,
    load,
    new_report,
    require_timm,
    save,
    suite,
    terminal_tables,
    write,
)

_SUITE_SCOPES = dict(table3=['classifier'], table4=['detector'])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'models', nargs='*', metavar='CONFIG [CKPT]', help='configs, each with its checkpoint if any; or timm://NAME'
    )
    parser.add_argument('--out', help='folder for report.json, .md, .csv and pictures')
    parser.add_argument('--suite', choices=['table3', 'table4'], help="the rows of one of the paper's tables")
    parser.add_argument('--only', nargs='+', default=[], metavar='ROW', help='rows of the suite, by name')
    parser.add_argument('--resume', action='store_true', help='go on with the suite whose report is in --out')
    parser.add_argument('--compare', nargs='+', metavar='REPORT', help='join reports of other days or machines')
    parser.add_argument('--no-eval', action='store_true', help='leave accuracy out')
    parser.add_argument('--scope', nargs='+', choices=SCOPES, help='what to time (default: all that a model has)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='of random input (default: 800 1280, classifiers 224 224)',
    )
    parser.add_argument('--batch-size', type=int, nargs='+', metavar='N', help='(default: 1; classifiers 1 and 32)')
    parser.add_argument('--dtype', nargs='+', default=['fp32'], metavar='DTYPE', help=', '.join(DTYPES))
    parser.add_argument('--mode', nargs='+', metavar='MODE', help=f'{", ".join(MODES)} (default: eager; suites: fused)')
    parser.add_argument('--channels-last', action='store_true')
    parser.add_argument(
        '--warmup', type=float, default=Limits.warmup, help='most seconds of warm-up (default: %(default)s)'
    )
    parser.add_argument('--min-seconds', type=float, default=Limits.min_seconds, help='least seconds of samples')
    parser.add_argument('--repeats', type=int, default=Limits.repeats, help='least number of samples')
    parser.add_argument('--threads', type=int, help="CPU threads (default: torch's own choice)")
    add_cfg_options(parser)
    args = parser.parse_args()
    if bool(args.models) + bool(args.suite) + bool(args.compare) != 1:
        parser.error('give configs, or --suite, or --compare')
    if (args.resume or args.only) and not args.suite:
        parser.error('--resume and --only are for a --suite')
    if not args.compare and not args.out:
        parser.error('--out FOLDER says where the report goes')
    return args


def options_of(args: argparse.Namespace) -> Options:
    try:
        device = torch.device(args.device)
    except RuntimeError as error:
        raise UserError(f'--device {args.device}: expected cpu, cuda or cuda:N') from error
    if device.type not in ('cpu', 'cuda'):
        raise UserError(f'--device {args.device}: expected cpu, cuda or cuda:N')
    if device.type == 'cuda':
        if not torch.cuda.is_available():
            raise UserError(f'--device {args.device}: no CUDA device is available here; use --device cpu')
        if (device.index or 0) >= torch.cuda.device_count():
            raise UserError(f'--device {args.device}: only {torch.cuda.device_count()} CUDA devices are here')
        torch.cuda.set_device(device.index or 0)
        # fp32 means fp32: by default cuDNN rounds the factors of a convolution to TF32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for name, least in (('threads', 1), ('repeats', 1), ('min_seconds', 0), ('warmup', 0)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise UserError(f'--{name.replace("_", "-")} must be at least {least}, but is {getattr(args, name)}')
    for name, values, least in (('batch-size', args.batch_size, 1), ('shape', args.shape, 32)):
        if any(value < least for value in values or ()):
            raise UserError(f'--{name} must be at least {least}, but is {" ".join(map(str, values))}')
    if args.threads:
        torch.set_num_threads(args.threads)
    return Options(
        device=device,
        shape=tuple(args.shape) if args.shape else None,
        batch_sizes=args.batch_size,
        modes=args.mode or (['fused'] if args.suite else ['eager']),
        dtypes=args.dtype,
        channels_last=args.channels_last,
        scopes=args.scope or _SUITE_SCOPES.get(args.suite),
        evaluate=not args.no_eval,
        limits=Limits(args.warmup, args.min_seconds, args.repeats),
    )


def pairs_of(models: list[str]) -> list[tuple[str, str | None]]:
    """CONFIG [CKPT] [CONFIG CKPT ...]: what ends in .py is a config, what follows one is its checkpoint."""
    pairs = []
    for item in models:
        if item.endswith('.py') or item.startswith('timm://'):
            pairs.append((item, None))
        elif pairs and pairs[-1][1] is None:
            pairs[-1] = (pairs[-1][0], item)
        else:
            raise UserError(
                f'{item}: expected CONFIG [CKPT] [CONFIG CKPT ...], where a config ends in .py, or timm://NAME'
            )
    return pairs


def subjects_of(args: argparse.Namespace) -> list[Subject]:
    pairs = []
    for path, checkpoint in pairs_of(args.models):
        if path.startswith('timm://'):
            require_timm(path)
            if checkpoint:
                raise UserError(f'{path}: weights of timm are not read; its name stands without a checkpoint')
            pairs.append((path, None, None))
        else:
            pairs.append((path, load_config(path, args.cfg_options), checkpoint))
    for path, cfg, checkpoint in pairs:  # before anything is built
        if cfg is None:
            continue
        if checkpoint:
            require_source(checkpoint)
        if not args.no_eval:
            try:
                check_evaluation(cfg)
            except UserError as error:
                raise UserError(f'{path}: {str(error).rstrip(".")}. Without evaluation: --no-eval') from error
    subjects = [from_config(cfg, path, checkpoint) if cfg else from_timm(path) for path, cfg, checkpoint in pairs]
    for number, subject in enumerate(subjects):
        if subject.name in [other.name for other in subjects[:number]]:
            subject.name = f'{subject.name} ({number + 1})'
    return subjects


def report(args: argparse.Namespace) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)  # a log is not a terminal of 80 columns
    options = options_of(args)
    out = Path(args.out)
    require_writable(out, f'--out {out}')
    measured = None
    if args.suite:
        rows = suite(args.suite, args.only)
        if args.resume and (out / 'report.json').exists():
            measured = load(out)
            check_continues(measured, new_report(options, sys.argv, args.suite))
    else:
        subjects = subjects_of(args)
    measured = measured or new_report(options, sys.argv, args.suite)
    say = partial(console.print, markup=False)  # names may have brackets
    reporter = Reporter(measured, options, lambda report: save(report, out), say)
    try:
        if args.suite:
            reporter.run_suite(rows, out)
        else:
            reporter.run(subjects, out)
        reporter.finish()
    except KeyboardInterrupt:
        console.print('interrupted: what was measured is kept, marked incomplete')
    write(reporter.report, out)
    console.print(terminal_tables(reporter.report))
    console.print(f'written to {out}{os.sep}: report.json, report.md, report.csv and pictures')
    if not reporter.report['complete']:
        sys.exit(130)


def main() -> None:
    args = parse_args()
    if args.compare:
        text = compare([load(path) for path in args.compare], args.compare)
        print(text)
        if args.out:
            require_writable(Path(args.out), f'--out {args.out}')
            Path(args.out, 'compare.md').write_text(text)
        return
    report(args)


if __name__ == '__main__':
    with command_line():
        main()
