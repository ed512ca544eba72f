"""Accuracy, by the config's own evaluator on the config's own data."""

import copy
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from ...engine.preflight import check_config
from ...engine.runner import FittingCheckpointHook
from ..schema import Evaluation
from .modes import half, in_mode


def check_evaluation(cfg: Config) -> None:
    """Raise UserError where the config has no test data, or its files are not here."""
    check_config(cfg, 'test')


def widen(element: BaseDataElement) -> None:
    """Make half precision single in place: the metrics' NumPy has no bf16."""
    for name, value in element.items():
        if isinstance(value, BaseDataElement):
            widen(value)
        elif isinstance(value, torch.Tensor) and value.is_floating_point():
            setattr(element, name, value.float())


def data_labels(cfg: Config, annotations: str, images: int) -> list[str]:
    """Return what makes an accuracy another one than that which papers report."""
    labels = [f'accuracy on {images} images only'] if images < 5000 else []
    is_val2017 = os.path.basename(annotations) == 'instances_val2017.json' and images == 5000
    if cfg.default_scope == 'mmdet' and not is_val2017:
        labels.append(f'AP on {annotations}, not on COCO val2017')
    return labels


def evaluate(
    cfg: Config,
    checkpoint: str | None,
    folder: Path,
    device: torch.device,
    mode: str = 'eager',
    dtype: str = 'fp32',
    channels_last: bool = False,
) -> Evaluation:
    """Run the config's test loop on the model in one mode.

    Args:
        cfg, checkpoint: As for ``tools/test.py``; without a checkpoint, random weights are evaluated.
        folder (Path): For the runner's own logs.
        mode, dtype (str): A plain one of :data:`MODES`, and one of :data:`DTYPES`; half precision is autocast.

    Raises:
        UserError: If the data is not there, or the checkpoint does not fit.
    """
    cfg = copy.deepcopy(cfg)
    cfg.load_from, cfg.resume, cfg.work_dir = checkpoint, False, str(folder)
    cfg.setdefault('launcher', 'none')
    check_config(cfg, 'test')

    class DeviceRunner(RUNNERS.get(cfg.get('runner_type', 'Runner'))):
        def wrap_model(self, model_wrapper_cfg: dict | None, model: torch.nn.Module) -> torch.nn.Module:
            return model.to(device)  # mmengine takes the first accelerator that it finds

    class ModeHook(Hook):
        def before_test_epoch(self, runner: Runner) -> None:
            """Put a copy of the model in the mode in place of the model, as it is now (EMA's, say)."""
            runner.model, _ = in_mode(runner.model.eval(), mode, device, channels_last)
            step = runner.model.test_step

            def test_step(data):
                with half(device, dtype):
                    samples = step(data)
                for sample in samples:
                    widen(sample)
                return samples

            runner.model.test_step = test_step

    runner = DeviceRunner.from_cfg(cfg)
    runner.register_hook(FittingCheckpointHook(), priority='VERY_HIGH')
    runner.register_hook(ModeHook(), priority='LOWEST')
    results = runner.test()
    metrics = {name: float(value) for name, value in results.items() if isinstance(value, (int, float))}
    dataset = runner.test_dataloader.dataset
    annotations = str(getattr(dataset, 'ann_file', '') or getattr(dataset, 'data_root', '') or '')
    labels = [] if checkpoint else ['accuracy of random weights']
    if (mode, dtype) != ('eager', 'fp32'):
        labels.append(f'accuracy of {mode} {dtype}')
    return Evaluation(metrics, len(dataset), annotations, labels + data_labels(cfg, annotations, len(dataset)))
