"""Train a detector or a classifier: mmdet's train.py, with the checks and the CPU support of fasternet_mm."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config

from fasternet_mm.engine.cli import command_line, parse_run_args
from fasternet_mm.engine.preflight import check_config
from fasternet_mm.engine.rehearsal import doctor_named, prepare_runner, run
from fasternet_mm.engine.runner import FittingCheckpointHook, load_config
from fasternet_mm.engine.work_dir import last_checkpoint, training_in
from fasternet_mm.errors import UserError
from fasternet_mm.files import require_writable


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector or a classifier')
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help="scale the learning rate to this run's batch size")
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='resume from this checkpoint; without a value, from the last one in the work dir',
    )
    return parse_run_args(parser, argv)


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True
    if args.resume not in (None, 'auto'):
        cfg.resume = True
        cfg.load_from = args.resume
    elif args.resume == 'auto' or cfg.get('resume') and not cfg.get('load_from'):
        last = last_checkpoint(cfg)
        # at a first start there is nothing to resume, and load_from stands
        cfg.resume = last is not None
        cfg.load_from = last or cfg.get('load_from')


def main() -> None:
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    cfg = load_config(args.config, args.cfg_options, args.launcher, args.work_dir)
    apply_options(cfg, args)
    check_config(cfg, 'train')
    require_writable(Path(cfg.work_dir), f'the work dir {cfg.work_dir}')
    with training_in(cfg), doctor_named(args.config):
        runner = prepare_runner(cfg, 'train')
        if cfg.get('resume'):
            runner.register_hook(FittingCheckpointHook(), priority='VERY_HIGH')
        run(runner, cfg, 'train')


if __name__ == '__main__':
    with command_line():
        main()
