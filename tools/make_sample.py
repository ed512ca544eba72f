"""Draw the sample data set: COCO format, circles, squares and triangles with instance masks."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse

from fasternet_mm.datasets import generate_shapes
from fasternet_mm.engine.cli import command_line


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('root', nargs='?', default='data/sample', help='folder to write to')
    parser.add_argument('--num-train', type=int, default=400)
    parser.add_argument('--num-val', type=int, default=60)
    parser.add_argument('--size', type=int, default=192, help='side of the images in pixels')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    root = generate_shapes(**vars(args))
    print(f'the sample data set is in {root}')


if __name__ == '__main__':
    with command_line():
        main()
