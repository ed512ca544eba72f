"""Configs on the shipped ones, shrunk to run in seconds."""

from pathlib import Path

from . import REPO


def write_tiny_config(
    folder: Path, sample: Path, name: str = 'tiny', epochs: int = 3, num_workers: int = 0, extra: str = ''
) -> Path:
    """Write a config on the shipped sample config to `folder`, where its work dir is, too; returns its path."""
    path = folder / f'{name}.py'
    path.write_text(
        f'_base_ = {str(REPO / "configs" / "mask_rcnn_fasternet_t0_sample.py")!r}\n'
        f'data_root = {str(sample) + "/"!r}\n'
        'dataset = dict(data_root=data_root)\n'
        'size = (64, 64)\n'
        'model = dict(\n'
        '    backbone=dict(arch=dict(_delete_=True, embed_dims=8, depths=(1, 1, 2, 1)),\n'
        '                  drop_path_rate=0.2),\n'
        '    neck=dict(in_channels=[8, 16, 32, 64]))\n'
        f'workers = dict(num_workers={num_workers}, persistent_workers={num_workers > 0})\n'
        'train_dataloader = dict(batch_size=2, dataset=dataset, **workers)\n'
        'val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)\n'
        'test_dataloader = val_dataloader\n'
        "val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')\n"
        'test_evaluator = val_evaluator\n'
        f'train_cfg = dict(max_epochs={epochs}, val_interval={epochs})\n'
        f'work_dir = {str(folder / "work")!r}\n'
        'randomness = dict(seed=0)\n'
        'default_hooks = dict(logger=dict(interval=1))\n'
        'log_processor = dict(window_size=1, by_epoch=True)\n' + extra
    )
    return path
