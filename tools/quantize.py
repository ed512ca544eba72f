"""Quantize an exported file to int8 for OpenVINO, and measure what that costs."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse
import resource
import sys
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
from mmengine.config import Config

from fasternet_mm.deploy import require_packages
from fasternet_mm.deploy.detector.pipeline import pictures_in
from fasternet_mm.deploy.evaluation import ExportedFile
from fasternet_mm.deploy.quantization import quantize_file
from fasternet_mm.engine.cli import add_cfg_options, command_line
from fasternet_mm.engine.preflight import check_config, check_training_data
from fasternet_mm.engine.runner import load_config
from fasternet_mm.errors import UserError
from fasternet_mm.files import require_output


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('file', metavar='FILE.onnx', help='of tools/export.py: a detector, classifier or backbone')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--config', help='calibrate on its training images, measure accuracy on its test images')
    source.add_argument('--images', metavar='DIR', help='calibrate on these pictures; accuracy is not measured')
    parser.add_argument('--out', required=True, metavar='FILE.xml', help='FILE.bin is written beside it')
    parser.add_argument(
        '--max-drop', type=float, metavar='POINTS', help='of 100, of mask AP, else box AP, else top-1 that may be lost'
    )
    parser.add_argument('--num-images', type=int, default=64, help='to calibrate on (default: %(default)s)')
    add_cfg_options(parser)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    file, out = Path(args.file), Path(args.out)
    require_arguments(args, file, out)
    require_packages('nncf', 'openvino')
    require_output(out, '--out')
    if args.images:
        pictures = pictures_in(Path(args.images), args.num_images)
        quantize_file(file, out, ExportedFile(file).picture_inputs(pictures))
    else:
        cfg = load_config(args.config, args.cfg_options)
        exported = ExportedFile(file)
        require_fitting(exported, cfg, args)
        measure = None if exported.kind == 'features' else lambda path: ExportedFile(path).evaluate(cfg)
        quantize_file(file, out, exported.training_inputs(cfg, args.num_images), measure, args.max_drop)
    sizes = [path.stat().st_size / 1e6 for path in (file, out.with_suffix('.bin'))]
    print(f'{out}: {sizes[1]:.1f} MB of weights, {file} {sizes[0]:.1f} MB; peak memory {peak_memory():.1f} GB')


def require_arguments(args: argparse.Namespace, file: Path, out: Path) -> None:
    """Raise UserError for arguments that cannot go together, or that name what is not there."""
    if file.suffix != '.onnx' or not file.is_file():
        raise UserError(f'{file} is not {"there" if file.suffix == ".onnx" else "an .onnx file of tools/export.py"}')
    if out.suffix != '.xml':
        raise UserError(f'--out {out} must end with .xml')
    for path in (out, out.with_suffix('.bin')):
        if path.exists():
            raise UserError(f'--out {out}: {path} exists; remove it or choose another name')
    if args.num_images < 1:
        raise UserError(f'--num-images must be at least 1, but is {args.num_images}')
    if args.max_drop is not None and not args.max_drop >= 0:
        raise UserError(f'--max-drop must be at least 0, but is {args.max_drop}')
    if args.images and (args.max_drop is not None or args.cfg_options):
        raise UserError('--max-drop and --cfg-options need --config: pictures alone have no accuracy')


def require_fitting(exported: ExportedFile, cfg: Config, args: argparse.Namespace) -> None:
    """Raise UserError where the file and the config do not belong together, or data is not there."""
    scope = 'mmpretrain' if exported.kind == 'classifier' else 'mmdet' if exported.kind == 'detector' else None
    if scope not in (None, cfg.get('default_scope')):
        raise UserError(f'{args.file} is a {exported.kind}, but {args.config} is of {cfg.get("default_scope")}')
    if args.max_drop is not None and exported.kind == 'features':
        raise UserError(f'--max-drop: {args.file} is no whole network, so that no accuracy can be measured')
    check_training_data(cfg)
    check_config(cfg, 'test')


def peak_memory() -> float:
    """Return the most memory that this process has held, in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == 'darwin' else peak / 1e6


if __name__ == '__main__':
    with command_line():
        main()
