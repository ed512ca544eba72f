"""Look into a trained network: what could stand in for its convolutions, where its filters are largest, and more."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse
import os
import sys

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
import torch
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from fasternet_mm.engine.cli import add_cfg_options, command_line
from fasternet_mm.report import select_device
from fasternet_mm.study import (
    METHODS,
    Study,
    Subject,
    build,
    find_pictures,
    list_layers,
    study_approximation,
    study_features,
    study_redundancy,
    study_salient,
)
from fasternet_mm.study.markdown import markdown


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    studies = parser.add_subparsers(dest='study', required=True, metavar='STUDY')

    def add_study(name: str, help: str, needs_images: bool = True) -> argparse.ArgumentParser:
        one = studies.add_parser(name, help=help, description=help)
        one.add_argument(
            'model', metavar='MODEL', help='config of mmdet or mmpretrain, timm://NAME, torchvision://NAME'
        )
        checkpoint_help = 'file, URL or name (default: what timm and torchvision publish)'
        one.add_argument('checkpoint', nargs='?', metavar='CKPT', help=checkpoint_help)
        images_help = 'folder of pictures, searched with those below it; or one' if needs_images else 'not looked at'
        one.add_argument('--images', required=needs_images, metavar='DIR', help=images_help)
        one.add_argument('--out', required=True, metavar='DIR', help='folder for study.json, study.md and pictures')
        one.add_argument('--size', type=int, help="side of the input in pixels (default: the network's own, or 224)")
        one.add_argument('--random-weights', action='store_true', help='study the network before its training')
        one.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
        one.add_argument('--threads', type=int, help="CPU threads (default: torch's own choice)")
        add_cfg_options(one)
        return one

    one = add_study('approximation', 'how near cheap operators come to 3x3 convolutions: table 2 of the paper')
    first_of_each = '(default: the first regular 3x3 convolution of each stage)'
    one.add_argument('--layers', nargs='+', metavar='NAME', help=f'regular 3x3 convolutions {first_of_each}')
    one.add_argument('--rows', type=int, default=16384, help='output pixels of a layer (default: %(default)s)')
    one.add_argument('--steps', type=int, default=600, help='of Adam; 0 leaves it out (default: %(default)s)')
    add_study('salient', 'where 3x3 filters are largest: figure 6', needs_images=False)
    one = add_study('redundancy', 'how much feature maps repeat one another: figure 3, and numbers')
    one.add_argument('--layers', nargs='+', metavar='NAME', help=f'layers that take one map {first_of_each}')
    one = add_study('features', 'what layers see in pictures: activation maps and class-activation maps')
    one.add_argument('--layer', nargs='+', metavar='NAME', help="(default: a detector's neck, or the last map)")
    one.add_argument('--list-layers', action='store_true', help='print which layers there are, and end')
    one.add_argument('--method', nargs='+', choices=list(METHODS), default=['activation'], help='(default: activation)')
    one.add_argument('--class', dest='wanted', metavar='NAME', help='whose evidence is shown (default: the best one)')
    one.add_argument('--score-thr', type=float, default=0.5, help='lowest score of a detection (default: 0.5)')
    parser.epilog = '\n'.join(one.format_usage() for one in studies.choices.values())
    args = parser.parse_args(argv)
    if args.study == 'features' and args.size and args.model.endswith('.py'):
        parser.error("--size is for timm:// and torchvision://; pictures go through the config's own test pipeline")
    return args


def run(args: argparse.Namespace, subject: Subject, progress: Progress) -> Study:
    shared = dict(out=args.out, command=sys.argv)
    if args.study == 'salient':
        return study_salient(subject, **shared)
    shared |= dict(images=args.images, track=progress.track)
    if args.study == 'features':
        shared |= dict(layers=args.layer, methods=args.method, wanted=args.wanted, score_threshold=args.score_thr)
        return study_features(subject, **shared)
    if args.study == 'approximation':
        return study_approximation(subject, layers=args.layers, rows=args.rows, steps=args.steps, **shared)
    return study_redundancy(subject, layers=args.layers, **shared)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    device = select_device(args.device, args.threads)
    subject = build(args.model, args.checkpoint, args.random_weights, args.size, args.cfg_options)
    subject.model.to(device)
    if getattr(args, 'list_layers', False):
        for name, shape in list_layers(subject, find_pictures(args.images)[0]).items():
            print(f'{name}: {" x ".join(map(str, shape))}')
        return
    with Progress(console=Console(stderr=True)) as progress:
        study = run(args, subject, progress)
    console = Console(width=None if sys.stdout.isatty() else 160)  # a log is not a terminal of 80 columns
    console.print(Markdown(markdown(study).partition('## Environment')[0]))
    console.print(f'written to {args.out}{os.sep}: study.json, study.md and pictures', markup=False)


if __name__ == '__main__':
    with command_line():
        main()
