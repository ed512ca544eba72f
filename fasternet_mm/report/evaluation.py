"""Accuracy, by the config's own evaluator on the config's own data."""

import copy
import os
from pathlib import Path

from mmengine.config import Config

from ..engine.cli import FittingCheckpointHook, build_runner, check_config


def check_evaluation(cfg: Config) -> None:
    """Raise UserError where the config has no test data, or its files are not here."""
    check_config(cfg, 'test')


def evaluate(cfg: Config, checkpoint: str | None, folder: Path) -> dict:
    """Run the config's test loop.

    Args:
        cfg (Config): As for ``tools/test.py``.
        checkpoint (str, optional): Without it, random weights are evaluated.
        folder (Path): For the runner's own logs.

    Returns:
        dict: ``evaluation`` of a report.

    Raises:
        UserError: If the data is not there, or the checkpoint does not fit.
    """
    cfg = copy.deepcopy(cfg)
    cfg.load_from, cfg.resume, cfg.work_dir = checkpoint, False, str(folder)
    cfg.setdefault('launcher', 'none')
    check_config(cfg, 'test')
    runner = build_runner(cfg)
    runner.register_hook(FittingCheckpointHook(), priority='VERY_HIGH')
    metrics = {name: float(value) for name, value in runner.test().items() if isinstance(value, (int, float))}
    dataset = runner.test_dataloader.dataset
    annotations = str(getattr(dataset, 'ann_file', '') or getattr(dataset, 'data_root', '') or '')
    labels = [] if checkpoint else ['accuracy of random weights']
    if len(dataset) < 5000:
        labels.append(f'accuracy on {len(dataset)} images only')
    is_val2017 = os.path.basename(annotations) == 'instances_val2017.json' and len(dataset) == 5000
    if cfg.default_scope == 'mmdet' and not is_val2017:
        labels.append(f'AP on {annotations}, not on COCO val2017')
    return dict(metrics=metrics, images=len(dataset), dataset=annotations, labels=labels, error=None)
