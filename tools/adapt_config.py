"""Put a FasterNet into any config: write a leaf config that inherits from it and says what changes, nothing else."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
from fasternet_mm import FasterNet
from fasternet_mm.adapt import adapt, find_config, leaf_text, read_config, try_out
from fasternet_mm.engine.cli import command_line
from fasternet_mm.errors import UserError
from fasternet_mm.files import AtomicLocalBackend, require_output


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a path, or a mmdet::, mmpretrain:: or mmseg:: name')
    parser.add_argument('--arch', required=True, choices=list(FasterNet.arch_settings))
    parser.add_argument('--out', metavar='FILE.py', help='(default: <config name>_fasternet-<arch>.py)')
    checkpoint_help = "file, URL, fasternet://NAME, or none for random weights (default: the authors' of --arch)"
    parser.add_argument('--checkpoint', help=checkpoint_help)
    project_help = 'a 1x1 convolution and resampling behind each output: necks and heads see what they saw'
    parser.add_argument('--project', action='store_true', help=project_help)
    check_help = 'also build it with random weights, train a step and predict, on noise'
    parser.add_argument('--check', action='store_true', help=check_help)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    out = Path(args.out or f'{find_config(args.config).stem}_fasternet-{args.arch}.py')
    if out.suffix != '.py':
        raise UserError(f'--out {out} must end in .py')
    if out.exists():
        raise UserError(f'--out {out} exists; remove it or choose another name')
    cfg = read_config(args.config)
    adaptation = adapt(cfg, args.arch, args.checkpoint, args.project)
    require_output(out, '--out')
    if args.check:
        trial = try_out(adaptation.applied(cfg))
        losses = ', '.join(f'{name} {value:.3g}' for name, value in trial.losses.items())
        print(f'one training step: {losses or "none, as its parts are trained on their own"}')
        print(f'predictions: {trial.predictions}')
    text = leaf_text(args.config, adaptation, out)
    AtomicLocalBackend().put_text(text, out)
    print(f'{text}-> {out}')


if __name__ == '__main__':
    with command_line():
        main()
