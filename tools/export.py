"""Export a trained FasterNet as one ONNX file, in its deploy form, checked against PyTorch."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
from fasternet_mm.checkpoint import require_source
from fasternet_mm.deploy import PARTS, export_detector, export_onnx, provenance, require_packages
from fasternet_mm.engine.cli import add_cfg_options, command_line
from fasternet_mm.engine.runner import build_model, load_config
from fasternet_mm.errors import UserError
from fasternet_mm.files import require_output


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of an mmpretrain classifier or an mmdet detector with a FasterNet')
    parser.add_argument('checkpoint', nargs='?', help='file, URL or name; random weights without it')
    parser.add_argument('--out', required=True, metavar='FILE.onnx')
    what_help = '(default: classifier, or backbone+neck of a detector); detector: all of it, from pixels to detections'
    parser.add_argument('--what', choices=(*PARTS, 'detector'), help=what_help)
    shape_help = "(default: 224 224, or 800 1280 of a detector's part; detector: the test pipeline's)"
    parser.add_argument('--shape', type=int, nargs=2, metavar=('H', 'W'), help=shape_help)
    parser.add_argument('--dynamic', action='store_true', help='let height and width change, and of parts the batch')
    parser.add_argument('--score-threshold', type=float, metavar='X', help="detector: instead of the config's")
    parser.add_argument('--images', metavar='DIR', help="detector: pictures to check it with (default: the config's)")
    add_cfg_options(parser)
    args = parser.parse_intermixed_args(argv)  # the checkpoint may stand last
    if args.what != 'detector' and (args.score_threshold is not None or args.images):
        parser.error('--score-threshold and --images are for --what detector')
    if args.score_threshold is not None and not 0 <= args.score_threshold < 1:
        parser.error(f'--score-threshold must be at least 0 and below 1, but is {args.score_threshold}')
    if args.images and not Path(args.images).is_dir():
        parser.error(f'--images {args.images} is no folder')
    return args


def main() -> None:
    args = parse_args()
    out = Path(args.out)
    if out.exists():
        raise UserError(f'--out {out} exists; remove it or choose another name')
    if args.shape and min(args.shape) < 32:
        raise UserError(f'--shape must be at least 32, but is {args.shape[0]} {args.shape[1]}')
    require_packages('onnx', 'onnxscript', 'onnxruntime')
    require_output(out, '--out')
    cfg = load_config(args.config, args.cfg_options)
    if args.checkpoint:
        require_source(args.checkpoint)
    model = build_model(cfg, args.checkpoint)
    detector = cfg.default_scope == 'mmdet'
    if args.what == 'detector':
        if not detector:
            raise UserError(f'--what detector: {args.config} is not a config of mmdet')
        shape, images = args.shape and tuple(args.shape), args.images and Path(args.images)
        metadata = provenance(cfg, args.config, args.checkpoint)
        export_detector(model, cfg, metadata, out, shape, args.dynamic, args.score_threshold, images)
        return
    part = args.what or ('backbone+neck' if detector else 'classifier')
    shape = tuple(args.shape or ((800, 1280) if detector else (224, 224)))
    export_onnx(model, cfg, args.config, args.checkpoint, out, part, shape, args.dynamic)
    if detector and args.what is None:
        print('the file ends with the neck; --what detector writes all of it, from pixels to detections')


if __name__ == '__main__':
    with command_line():
        main()
