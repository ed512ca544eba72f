"""64 real COCO and 64 real ImageNet images, where they are (they are not part of the repository)."""

import json
import re

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.helpers import REPO


def test_the_shipped_s_config_trains_on_coco_and_prints_pycocotools_ap(shared_data, run_tool, tmp_path):
    coco = shared_data / 'coco64'
    config = tmp_path / 's_coco64.py'
    config.write_text(
        f'_base_ = {str(REPO / "configs/mask_rcnn_fasternet_s.py")!r}\n'
        f"data_root = '{coco}/'\n"
        'size = (160, 160)\n'
        "load, annotations = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, "
        'with_mask=True)\n'
        "resize = dict(type='Resize', scale=size, keep_ratio=True)\n"
        "train = [load, annotations, resize, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]\n"
        "test = [load, resize, annotations, dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', "
        "'img_shape', 'scale_factor'))]\n"
        # the real classes: all 80
        'model = dict(backbone=dict(init_cfg=None), test_cfg=dict(rcnn=dict(score_thr=0.0)))\n'
        # 8 images of the 46: an iteration of S takes 5 seconds
        'train_dataloader = dict(num_workers=0, persistent_workers=False, '
        'dataset=dict(data_root=data_root, pipeline=train, indices=8))\n'
        'val_dataloader = dict(num_workers=0, persistent_workers=False, '
        'dataset=dict(data_root=data_root, pipeline=test))\n'
        'test_dataloader = val_dataloader\n'
        "val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json', "
        f"outfile_prefix='{tmp_path}/dump')\n"
        'test_evaluator = val_evaluator\n'
        'train_cfg = dict(max_epochs=1)\n'
    )
    done = run_tool('train.py', config, '--work-dir', tmp_path / 'work')
    shortly = '--scope backbone --shape 64 64 --warmup 0 --min-seconds 0 --repeats 1'.split()
    run_tool('report.py', config, tmp_path / 'work' / 'epoch_1.pth', '--out', tmp_path / 'report', *shortly)
    (model,) = json.loads((tmp_path / 'report' / 'report.json').read_text())['models']
    truth = COCO(coco / 'annotations' / 'instances_val2017.json')
    for kind in ('bbox', 'segm'):
        results = json.loads((tmp_path / f'dump.{kind}.json').read_text())
        assert results
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        printed = float(re.findall(rf'{kind}_mAP_copypaste: (\S+)', done.stdout)[-1])
        reported = model['evaluation']['metrics'][f'coco/{kind}_mAP']
        assert [printed, reported] == pytest.approx([evaluation.stats[0]] * 2, abs=1e-3)


def test_t0_learns_64_classes_of_one_photograph_each(shared_data, run_tool, tmp_path):
    """From random weights, by the docs' ten lines and mmpretrain's own evaluation."""
    (code,) = [code for code in re.findall(r'```python\n(.*?)```', (REPO / 'docs' / 'training.md').read_text(), re.S)
               if 'CustomDataset' in code]  # fmt: skip
    code = code.replace("'./configs", f"'{REPO}/configs").replace('data/pets', f'{shared_data}/imagenet64')
    code = code.replace('num_classes=37', 'num_classes=64').replace("'fasternet://fasternet_t0'", 'None')
    config = tmp_path / 'imagenet64.py'
    config.write_text(re.sub(r"data_prefix='\w+'", "data_prefix=''", code))
    # smaller images and fewer epochs than the README's: 134 seconds of processor time otherwise
    size, epochs = 128, 40
    options = [f'train_dataloader.dataset.pipeline.1.scale={size}', f'train_cfg.max_epochs={epochs}',
               f'val_dataloader.dataset.pipeline.1.scale={size + 14}', f'train_cfg.val_interval={epochs}',
               f'val_dataloader.dataset.pipeline.2.crop_size={size}', f'param_scheduler.T_max={epochs}',
               *(f'{split}_dataloader.{setting}' for split in ('train', 'val')
                 for setting in ('num_workers=0', 'persistent_workers=False'))]  # fmt: skip
    work = tmp_path / 'work'
    done = run_tool('train.py', config, '--work-dir', work, '--cfg-options', 'randomness.seed=0', *options)
    assert float(re.findall(r'accuracy/top1: ([\d.]+)', done.stdout)[-1]) >= 90
