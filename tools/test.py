"""Evaluate a detector or a classifier: mmdet's test.py, with the checks and the CPU support of fasternet_mm."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse
import os
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
from mmdet.evaluation import DumpDetResults
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.evaluator import DumpResults

from fasternet_mm.engine.cli import command_line, parse_run_args
from fasternet_mm.engine.preflight import check_config
from fasternet_mm.engine.rehearsal import prepare_runner, run
from fasternet_mm.engine.runner import FittingCheckpointHook, load_config
from fasternet_mm.errors import UserError
from fasternet_mm.files import require_output, require_writable


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a detector or a classifier')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--out', metavar='FILE.pkl', help='dump the predictions to a pickle file')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='save pictures of predictions in this folder below the work dir')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show each picture (default: 2)')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation: the config's, or flips")
    args = parse_run_args(parser, argv)
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end in .pkl or .pickle, but is {args.out}')
    return args


def is_classifier(cfg: Config) -> bool:
    return cfg.get('default_scope') == 'mmpretrain'


def add_visualization(cfg: Config, args: argparse.Namespace) -> None:
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError('--show and --show-dir need default_hooks.visualization in the config')
    hook.update(show=args.show, wait_time=args.wait_time)
    if is_classifier(cfg):  # mmdet's hook puts its folder below the work dir itself
        hook.update(enable=True, out_dir=args.show_dir and os.path.join(cfg.work_dir, args.show_dir))
    else:
        hook.update(draw=True, test_out_dir=args.show_dir)


def add_tta(cfg: Config) -> None:
    if cfg.model.get('roi_head', {}).get('mask_head') or cfg.model.get('mask_head'):
        raise UserError('--tta: mmdet has no test-time augmentation for instance segmentation; test without it')
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_model' not in cfg:
        nms = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        cfg.tta_model = dict(type='AverageClsScoreTTA') if is_classifier(cfg) else dict(type='DetTTAModel', tta_cfg=nms)
    if 'tta_pipeline' not in cfg:
        *load, pack = dataset.pipeline
        if 'meta_keys' in pack:  # the transforms' own defaults have these two
            pack = dict(pack, meta_keys=(*pack['meta_keys'], 'flip', 'flip_direction'))
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        cfg.tta_pipeline = [*load, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def main() -> None:
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    cfg = load_config(args.config, args.cfg_options, args.launcher, args.work_dir)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    check_config(cfg, 'test')
    require_writable(Path(cfg.work_dir), f'the work dir {cfg.work_dir}')
    if args.out is not None:
        require_output(args.out, '--out')
    if args.show_dir and (is_classifier(cfg) or os.path.isabs(args.show_dir)):  # else below a folder that is new
        require_writable(Path(cfg.work_dir, args.show_dir), f'--show-dir {args.show_dir}')
    if args.show or args.show_dir:
        add_visualization(cfg, args)
    if args.tta:
        add_tta(cfg)
    runner = prepare_runner(cfg, 'test')
    runner.register_hook(FittingCheckpointHook(), priority='VERY_HIGH')
    if args.out is not None:
        dump = DumpResults if is_classifier(cfg) else DumpDetResults
        # first: an evaluation that fails does not cost the predictions
        runner.test_evaluator.metrics.insert(0, dump(out_file_path=args.out))
    run(runner, cfg, 'test')


if __name__ == '__main__':
    with command_line():
        main()
