"""Everything that a run will use, built and tried on one image before the first iteration."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature

import torch
from mmdet.models import RPNHead, SingleStageDetector, TwoStageDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseTTAModel
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import DataLoader

from ..errors import DataError, UserError, did_you_mean
from ..models import FasterNet
from .checks.classes import (
    check_annotations,
    check_classes,
    check_evaluator,
    check_heads,
    check_same_classes,
    check_trained_classes,
)
from .explaining import explain, explained, unknown_type
from .runner import build_runner, unwrapped
from .samples import check_files, first_sample, leaves, name_images

_PLAIN = (SingleStageDetector, TwoStageDetector, ImageClassifier)  # take a dict of inputs and data_samples
_TOGETHER = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
_SIDE = 64  # pixels of the image that is tried


def prepare_runner(cfg: Config, phase: str) -> Runner:
    """Build the runner and all that it will use in `phase`, and try it on one image of each data set.

    The runner keeps what was built, so that its ``train()`` or ``test()`` builds nothing again; random numbers are as
    they would be without.

    Args:
        cfg (Config): The config.
        phase (str): 'train' or 'test'.

    Raises:
        UserError: Names the setting that does not work, what stands there, and why.
    """
    _check_settings(cfg)
    with explained(cfg, phase):
        runner = build_runner(cfg)
        loops = _build_train(runner) if phase == 'train' else {'test': runner.test_loop}
    _check_checkpoint_hooks(runner)
    for name, loop in loops.items():
        _check_length(loop.dataloader, cfg[f'{name}_dataloader'], f'{name}_dataloader')
        _check_data(runner, loop, name, cfg, phase)
    if 'val' in loops:
        check_same_classes(loops['train'].dataloader.dataset, loops['val'].dataloader.dataset, runner.logger)
    return runner


@contextmanager
def doctor_named(config: str) -> Iterator[None]:
    """Note at an error of the data which command looks at all of it."""
    try:
        yield
    except DataError as error:
        error.add_note(f'python tools/check_data.py {config} looks at all of the data')
        raise


def run(runner: Runner, cfg: Config, phase: str) -> None:
    """Train or test. What fails in the first iteration, the first validation or a test is the config's: it is one line.

    Raises:
        UserError: Names the setting that does not work, what stands there, and why.
    """
    start = _StartHook(cfg, phase)
    runner.register_hook(start, priority='VERY_HIGH')
    try:
        getattr(runner, phase)()
    except Exception as error:
        if start.over:
            raise
        raise explain(error, cfg, phase, unwrapped(runner.model)) from error


class _StartHook(Hook):
    """Knows whether what is running has run before."""

    def __init__(self, cfg: Config, phase: str) -> None:
        self.cfg = cfg
        self.phase = phase
        self.over = False
        self._validated = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self.phase == 'test':
            check_trained_classes(checkpoint, runner.test_loop.dataloader.dataset, runner.logger)

    def before_test(self, runner: Runner) -> None:
        _check_fit(runner, runner.test_loop, 'test', self.cfg)  # now that the checkpoint fits the model

    def after_train_iter(self, *args, **kwargs) -> None:
        self.over = True

    def before_val(self, runner: Runner) -> None:
        self.over = self._validated

    def after_val(self, runner: Runner) -> None:
        self.over = self._validated = True


def _check_settings(cfg: Config) -> None:
    for group in _TOGETHER:
        absent = [key for key in group if cfg.get(key) is None]
        if 0 < len(absent) < len(group):
            raise UserError(f'the config has no {" and no ".join(absent)}; {", ".join(group)} need each other')
    for key in ('model', 'train_cfg', 'optim_wrapper'):
        if not isinstance(cfg.get(key) or {}, Mapping):
            raise UserError(f'{key} must be a dict, but is {cfg[key]!r}')
    for key in ('max_epochs', 'max_iters', 'val_begin', 'val_interval'):
        value = (cfg.get('train_cfg') or {}).get(key, 1)
        if not isinstance(value, (int, float)) or not value >= 1:
            raise UserError(f'train_cfg.{key} must be an int of at least 1, but is {value!r}')
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    if isinstance(optimizer, dict) and isinstance(optimizer.get('type'), str):
        with OPTIMIZERS.switch_scope_and_registry(cfg.get('default_scope', 'mmengine')) as registry:
            if registry.get(optimizer['type']) is None:
                raise UserError(f'optim_wrapper.optimizer.type is {unknown_type(optimizer["type"], registry)}')


def _build_train(runner: Runner) -> dict:
    """Build in mmengine's own order what ``runner.train()`` builds."""
    loops = {'train': runner.train_loop}
    _check_length(runner.train_dataloader, runner.cfg.train_dataloader, 'train_dataloader')
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    runner.auto_scale_lr = None  # it is done, and may not be done once the schedulers know the learning rate
    if runner.param_schedulers is not None:
        runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    if runner.val_loop is not None:
        loops['val'] = runner.val_loop
    return loops


def _check_checkpoint_hooks(runner: Runner) -> None:
    """Refuse what CheckpointHook takes as ``**kwargs`` and hands on at the first save, hours later."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            known = {*signature(CheckpointHook).parameters, *signature(runner.save_checkpoint).parameters}
            for name in hook.args.keys() - known:
                raise UserError(f'{type(hook).__name__} has no setting {name!r}{did_you_mean(name, known)}')


def _check_length(loader: DataLoader, settings: Mapping, setting: str) -> None:
    if len(loader) == 0:
        raise UserError(
            f'{setting} yields no batch: the data set has {len(loader.dataset)} images, batch_size is '
            f'{settings.get("batch_size")!r}, drop_last is {settings.get("drop_last", False)!r}'
        )


def _check_data(runner: Runner, loop, name: str, cfg: Config, phase: str) -> None:
    setting, dataset, model = f'{name}_dataloader.dataset', loop.dataloader.dataset, unwrapped(runner.model)
    for path, leaf in leaves(dataset, setting):
        check_classes(leaf, path)
        name_images(leaf)
    if phase == 'train':
        _check_fit(runner, loop, name, cfg)
    with explained(cfg, phase, place=setting):
        try:
            sample = first_sample(dataset)
        except DataError as error:
            raise DataError(f'{setting}: {error}') from error
    for path, leaf in leaves(dataset, setting):
        check_files(leaf, path)
    if not isinstance(runner.model, BaseTTAModel):  # which takes several versions of an image
        _check_packing(sample, model, setting)
        with explained(cfg, phase, model=model, place=setting):
            inputs = model.data_preprocessor(loop.dataloader.collate_fn([sample]))['inputs']
        _try(model, inputs, cfg, phase)


def _check_fit(runner: Runner, loop, name: str, cfg: Config) -> None:
    """Check the data set against the heads and, where it is evaluated, the evaluator."""
    setting, dataset = f'{name}_dataloader.dataset', loop.dataloader.dataset
    check_heads(unwrapped(runner.model), dataset, setting)
    if name == 'train':
        check_annotations(dataset, setting)
    else:
        check_evaluator(loop, name, cfg[f'{name}_evaluator'], runner.logger)


def _check_packing(sample, model: nn.Module, setting: str) -> None:
    expected = DataSample if isinstance(model, ImageClassifier) else DetDataSample
    packed = isinstance(sample, Mapping) and 'inputs' in sample and isinstance(sample.get('data_samples'), expected)
    if isinstance(model, _PLAIN) and not packed:
        raise UserError(
            f"{setting}.pipeline does not give a dict of 'inputs' and 'data_samples' ({expected.__name__}), as "
            f'{type(model).__name__} takes it; its last step must be '
            f'{"PackInputs of mmpretrain" if expected is DataSample else "PackDetInputs of mmdet"}'
        )


@torch.no_grad()
def _try(model: nn.Module, inputs, cfg: Config, phase: str) -> None:
    """Let a model with our backbone see a small black image: channels and numbers of maps fit, or torch says so."""
    if not isinstance(getattr(model, 'backbone', None), FasterNet):
        return
    image, hint, training = inputs.new_zeros(1, inputs.shape[1], _SIDE, _SIDE), '', model.training
    model.eval()
    try:
        channels = [maps.shape[1] for maps in model.backbone(image)]
        hint = f'; the backbone gives {len(channels)} maps of {", ".join(map(str, channels))} channels'
        _forward(model, image)
    except Exception as error:
        raise explain(error, cfg, phase, model, hint=hint) from error
    finally:
        model.train(training)


def _forward(model: nn.Module, image: torch.Tensor) -> None:
    side = tuple(image.shape[2:])
    info = dict(img_shape=side, ori_shape=side, pad_shape=side, batch_input_shape=side, scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=info)]
    if isinstance(model, ImageClassifier):
        model(image, mode='tensor')
    elif isinstance(model, SingleStageDetector):
        model(image, samples, mode='tensor')
        model(image, samples, mode='predict')
    elif isinstance(model, TwoStageDetector) and isinstance(model.rpn_head, RPNHead):
        maps = model.extract_feat(image)
        proposals = model.rpn_head.predict(maps, samples, rescale=False)
        proposals = [boxes[:1] for boxes in proposals]  # all of them would take seconds
        model.roi_head(maps, proposals, samples)
        model.roi_head.predict(maps, proposals, samples)
    else:
        model.extract_feat(image)
