"""Draw a model's detections beside the ground truth of a few validation images, into one picture."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
from fasternet_mm.engine.cli import add_cfg_options, command_line
from fasternet_mm.engine.preflight import check_config
from fasternet_mm.engine.runner import load_config
from fasternet_mm.files import require_output
from fasternet_mm.visualization import draw_detections


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a detector')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--out', default='detections.png', help='picture to write (default: detections.png)')
    parser.add_argument('--num-images', type=int, default=6, help='how many validation images (default: 6)')
    parser.add_argument('--score-thr', type=float, default=0.5, help='lowest score to draw (default: 0.5)')
    parser.add_argument('--device', help="e.g. 'cpu' or 'cuda:0' (default: a GPU if there is one)")
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    if not args.out.endswith(('.png', '.jpg', '.pdf', '.svg')):
        parser.error(f'--out must end in .png, .jpg, .pdf or .svg, but is {args.out}')
    if args.num_images < 1:
        parser.error(f'--num-images must be at least 1, but is {args.num_images}')
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    check_config(cfg, 'test')
    require_output(args.out, '--out')
    draw_detections(cfg, args.checkpoint, args.out, args.num_images, args.score_thr, args.device)
    print(f'detections drawn in {args.out}')


if __name__ == '__main__':
    with command_line():
        main()
