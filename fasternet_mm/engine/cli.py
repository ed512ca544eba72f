"""What the command lines share: reading a config, looking at it before any long work, and one-line errors."""

import argparse
import inspect
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, RUNNERS, Registry
from mmengine.runner import Runner

from ..checkpoint import require_loadable, require_source
from ..errors import UserError
from ..models import FasterNet

# mmengine reads `mmdet::` configs through it, once a base
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')


_LAUNCHERS = {
    'none': ('', ()),
    'pytorch': ('torchrun', ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')),
    'slurm': ('srun', ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST')),
    'mpi': ('mpirun', ('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE')),
}


class ConfigOptions(DictAction):
    """mmengine's DictAction (``--cfg-options key=value ...``) with an error of argparse's kind."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            if '=' not in value:
                raise argparse.ArgumentError(self, f'expected key=value, but got {value!r}')
        super().__call__(parser, namespace, values, option_string)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, as mmdet's tools have it."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions, help='settings of the config to override, as key=value'
    )


def parse_run_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse what train.py and test.py have in common with mmdet's, besides what `parser` has of its own."""
    parser.add_argument('--work-dir', help='folder for logs and results (default: work_dirs/<config name>)')
    add_cfg_options(parser)
    parser.add_argument('--launcher', choices=list(_LAUNCHERS), default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)  # old launchers pass it
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


@contextmanager
def command_line() -> Iterator[None]:
    """Around a tool's main: a UserError and Ctrl-C become one line on stderr; distributed processes end together."""
    try:
        yield
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    except UserError as error:
        sys.exit(f'{Path(sys.argv[0]).name}: error: {" ".join(str(error).split())}')
    except KeyboardInterrupt:
        print(f'{Path(sys.argv[0]).name}: interrupted', file=sys.stderr)
        sys.exit(130)


def load_config(path: str, options: dict | None = None, launcher: str = 'none', work_dir: str | None = None) -> Config:
    """Read a config and apply what the command line says, as mmdet's tools do.

    Args:
        path (str): Config file.
        options (dict, optional): ``--cfg-options``.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        work_dir (str, optional): Beats the config's ``work_dir``; with neither, ``work_dirs/<config's name>``.

    Raises:
        UserError: If the config does not exist or cannot be read, or the launcher's environment is not there.
    """
    if not Path(path).is_file():
        raise UserError(f'config not found: {path}')
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(options or {})
    except Exception as error:
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    starter, variables = _LAUNCHERS[launcher]
    if not set(variables) <= set(os.environ):
        raise UserError(
            f'--launcher {launcher} is for processes that {starter} starts (it sets {", ".join(variables)}); use '
            'tools/dist_train.sh or tools/dist_test.sh, or leave --launcher out for a single process'
        )
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(path).stem))
    return cfg


def check_config(cfg: Config, phase: str) -> None:
    """Find what would stop `phase` ('train' or 'test'), before a model is built.

    Raises:
        UserError: Names the setting, what was expected, and what to do.
    """
    _check_backbone(cfg.get('model', {}))
    for loader in ('train', 'val') if phase == 'train' else ('test',):
        if cfg.get(f'{loader}_dataloader') is None:
            if loader == phase:
                raise UserError(f'the config has no {loader}_dataloader, so there is nothing to {phase} on')
            continue
        dataset = cfg[f'{loader}_dataloader'].get('dataset', {})
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope', 'mmengine')) as registry:
            _check_dataset(dataset, f'{loader}_dataloader.dataset', registry)
        _check_evaluators(cfg.get(f'{loader}_evaluator'), f'{loader}_evaluator')
    _check_checkpoints(cfg, phase)
    if phase == 'train' and not torch.cuda.is_available():
        if cfg.get('optim_wrapper', {}).get('type') == 'AmpOptimWrapper':
            raise UserError(
                'mixed precision (AmpOptimWrapper) needs a GPU; on a CPU train without --amp, and with '
                '--cfg-options optim_wrapper.type=OptimWrapper where the config asks for it'
            )


def _check_backbone(model) -> None:
    for node in _dicts(model):
        if str(node.get('type', '')).split('.')[-1] == 'FasterNet':
            try:
                with torch.device('meta'):
                    FasterNet(**{key: value for key, value in node.items() if key != 'type'})
            except Exception as error:
                raise UserError(error) from error


def _check_checkpoints(cfg: Config, phase: str) -> None:
    paths = [cfg.get('load_from')]
    if phase == 'train':
        paths += [node.get('checkpoint') for node in _dicts(cfg.get('model')) if node.get('type') == 'Pretrained']
    for path in paths:
        if path:
            require_source(path)


def _dicts(node) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from _dicts(child)


def _check_dataset(dataset: dict, name: str, registry: Registry) -> None:
    for key in ('dataset', 'datasets'):  # wrappers such as RepeatDataset and ConcatDataset
        inner = dataset.get(key)
        for child in inner if isinstance(inner, (list, tuple)) else [inner] if inner else []:
            _check_dataset(child, f'{name}.{key}', registry)
    if dataset.get('backend_args') or _downloads(dataset, registry):
        return
    root = dataset.get('data_root') or ''
    prefixes = dataset.get('data_prefix') or {}
    prefixes = prefixes if isinstance(prefixes, dict) else {'': prefixes}
    paths = {'data_root': root, 'ann_file': dataset.get('ann_file')}
    paths |= {f'data_prefix.{key}'.rstrip('.'): value for key, value in prefixes.items()}
    for key, value in paths.items():
        if isinstance(value, str) and value:
            _check_path(os.path.join(root, value) if key != 'data_root' else value, f'{name}.{key}')


def _downloads(dataset: dict, registry: Registry) -> bool:
    """Whether the data set fetches itself, as mmpretrain's CIFAR10 does."""
    kind = dataset.get('type')
    kind = registry.get(kind) if isinstance(kind, str) else kind
    download = inspect.signature(kind).parameters.get('download') if kind else None
    return dataset.get('download', download is not None and download.default is True)


def _check_evaluators(evaluators, name: str) -> None:
    for node in _dicts(evaluators):
        if isinstance(node.get('ann_file'), str):
            _check_path(node['ann_file'], f'{name}.ann_file')


def _check_path(path: str, setting: str) -> None:
    if '://' in path or os.path.exists(path):  # a remote path is the file backend's affair
        return
    here = '' if os.path.isabs(path) else f' (from {os.getcwd()})'
    sample = (
        ' Draw it with `python tools/make_sample.py`.'
        if Path('data/sample') in (Path(path), *Path(path).parents)
        else ''
    )
    raise UserError(
        f'dataset not found: {path}{here}, which the config names as {setting}.{sample or _OWN_DATA.format(setting)}'
    )


_OWN_DATA = ' Put the data (or a link to it) there, or name its place with --cfg-options {}=PATH.'


class FittingCheckpointHook(Hook):
    """Refuse a checkpoint that would leave any part of the model as it was; for testing and resuming.

    Raises:
        CheckpointError: Lists what does not fit.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = runner.model
        while hasattr(model, 'module'):  # DDP, or test-time augmentation
            model = model.module
        require_loadable(model, checkpoint)


def build_runner(cfg: Config) -> Runner:
    """The config's runner; processes without a GPU talk through gloo."""
    if cfg.launcher == 'pytorch' and not torch.cuda.is_available():
        # mmengine would choose NCCL and a CUDA device; it leaves an initialised process group alone
        torch.distributed.init_process_group('gloo')
        defaults = dict(broadcast_buffers=False, find_unused_parameters=cfg.get('find_unused_parameters', False))
        cfg.model_wrapper_cfg = dict(cfg.get('model_wrapper_cfg') or defaults, device_ids=None)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
