"""From a config to what runs it: the config as the command line changes it, its model, its runner."""

import copy
import logging
import os
from collections.abc import Mapping
from inspect import signature
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import MODELS, RUNNERS, DefaultScope
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

from ..checkpoint import load_strict, require_filling
from ..errors import CheckpointError, UserError, did_you_mean
from .checks.resume import require_resumable

# by launcher: what starts the processes, and what it sets, the process's number first
LAUNCHERS = {
    'none': ('', ()),
    'pytorch': ('torchrun', ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')),
    'slurm': ('srun', ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST')),
    'mpi': ('mpirun', ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE')),
}
# what Python and mmengine raise where a config is wrong itself: its syntax and names, its bases, what it imports
_OF_A_CONFIG = (SyntaxError, NameError, OSError, ImportError, LookupError, TypeError, ValueError, ConfigParsingError)
_OF_A_CONFIG += (SystemExit,)  # a sys.exit(0) would end the tool with status 0 and nothing done


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
        _warn_of_new_keys(cfg, options or {})
        cfg.merge_from_dict(options or {})
    except _OF_A_CONFIG as error:
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    starter, variables = LAUNCHERS[launcher]
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
    if not isinstance(cfg.work_dir, str):
        raise UserError(f'work_dir must be a path, but is {cfg.work_dir!r}')
    return cfg


def _warn_of_new_keys(cfg: Config, options: dict) -> None:
    """Say which option sets a key that nobody checks: what has a type refuses a wrong one itself."""
    settings = cfg.to_dict()
    for option in options:
        node = settings
        for key in option.split('.'):
            if isinstance(node, (list, tuple)):
                node = node[int(key)] if key.isdigit() and int(key) < len(node) else None
            elif isinstance(node, Mapping) and key in node:
                node = node[key]
            else:
                checked = not isinstance(node, Mapping) or 'type' in node
                if not checked and (node is not settings or key not in signature(Runner).parameters):
                    told = (
                        f'--cfg-options {option} sets a new key, as the config has no {key!r}{did_you_mean(key, node)}'
                    )
                    print_log(told, logger='current', level=logging.WARNING)
                break


def build_model(cfg: Config, checkpoint: str | None = None) -> nn.Module:
    """Build the model of a config of mmdet or mmpretrain.

    Args:
        cfg (Config): The config; it is not changed.
        checkpoint (str, optional): File, URL or name of weights that fill the whole model. Without it they are random,
            and no pretrained weights are loaded.

    Returns:
        nn.Module: In evaluation mode, on the CPU, in fp32.

    Raises:
        UserError: If the config is of neither library.
        CheckpointError: If the checkpoint cannot be had, or does not fit.
    """
    scope = cfg.get('default_scope')
    if scope not in ('mmdet', 'mmpretrain'):
        raise UserError(f'default_scope is {scope!r}, expected a config of mmdet or mmpretrain')
    settings = copy.deepcopy(cfg.model)
    if scope == 'mmpretrain' and cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(settings)
    if checkpoint is not None:
        load_strict(model, CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
    return model.eval()


class FittingCheckpointHook(Hook):
    """Refuse a checkpoint that would leave any part of the model, or of a resumed training, as it was."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Raise CheckpointError, before mmengine loads the checkpoint, where it is not all that is needed."""
        try:
            require_filling(unwrapped(runner.model), checkpoint)
            if runner._resume:  # as mmengine's EMAHook asks
                require_resumable(runner, checkpoint)
        except CheckpointError as error:
            raise CheckpointError(f'{runner._load_from or "the checkpoint"}: {error}') from error


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside its wrappers, DDP or test-time augmentation."""
    while hasattr(model, 'module'):
        model = model.module
    return model


def build_runner(cfg: Config) -> Runner:
    """Build the config's runner; processes without a GPU talk through gloo."""
    if cfg.launcher == 'pytorch' and not torch.cuda.is_available():
        # mmengine would choose NCCL and a CUDA device; it leaves an initialised process group alone
        torch.distributed.init_process_group('gloo')
        defaults = dict(broadcast_buffers=False, find_unused_parameters=cfg.get('find_unused_parameters', False))
        cfg.model_wrapper_cfg = dict(cfg.get('model_wrapper_cfg') or defaults, device_ids=None)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
