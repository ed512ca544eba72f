"""The command lines, end to end on a model and data small enough for a test."""

import json
import os
import pickle
import re
import subprocess
import sys

import cv2
import pytest
import torch
from mmengine.runner import CheckpointLoader
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.helpers import REPO


def printed_ap(text: str, kind: str) -> list[float]:
    line = re.findall(rf'{kind}_mAP_copypaste: (.*)', text)[-1]
    return [float(x) for x in line.split()]


def test_printed_ap_is_pycocotools_on_the_dumped_results(trained_detector, run_tool, tmp_path, sample):
    config, checkpoint = trained_detector
    done = run_tool('test.py', config, checkpoint, '--out', tmp_path / 'out.pkl', '--work-dir', tmp_path / 'work',
                    '--cfg-options', f'test_evaluator.outfile_prefix={tmp_path / "dump"}',
                    'model.test_cfg.rcnn.score_thr=0.0', process=True)  # fmt: skip
    truth = COCO(sample / 'annotations' / 'instances_val.json')
    for kind in ('bbox', 'segm'):
        results = json.loads((tmp_path / f'dump.{kind}.json').read_text())
        assert results, 'nothing was detected, so nothing would be compared'
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.params.maxDets = [100, 300, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.params.maxDets = [1, 10, 100]
        precision = evaluation.eval['precision'][:, :, :, 0, -1]
        mean = precision[precision > -1].mean()
        assert printed_ap(done.stdout, kind)[0] == pytest.approx(mean, abs=1e-3)
    assert len(pickle.loads((tmp_path / 'out.pkl').read_bytes())) == 4


def test_a_file_of_mmdet_2_is_tested_as_it_is(trained_detector, run_tool, tmp_path):
    config, checkpoint = trained_detector
    weights = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')['state_dict']
    meta = dict(mmdet_version='2.25.1', mmcv_version='1.6.1', CLASSES=('circle', 'square', 'triangle'), epoch=12)
    torch.save(dict(meta=meta, state_dict=weights, optimizer=dict(state={}, param_groups=[])), tmp_path / 'old.pth')
    old, new = (run_tool('test.py', config, file, '--work-dir', tmp_path).stdout
                for file in (tmp_path / 'old.pth', checkpoint))  # fmt: skip
    assert re.search(r'Checkpoint layout: mm or official detector. (\d+) of \1 tensors of MaskRCNN matched.', old)
    assert printed_ap(old, 'bbox') == printed_ap(new, 'bbox') and printed_ap(old, 'segm') == printed_ap(new, 'segm')


def test_pictures_by_show_dir_and_by_draw_detections(trained_detector, run_tool, tmp_path):
    config, checkpoint = trained_detector
    run_tool('test.py', config, checkpoint, '--show-dir', 'pictures', '--work-dir', tmp_path / 'work')
    assert len(list((tmp_path / 'work').glob('*/pictures/*'))) > 0
    arguments = [config, checkpoint, '--out', tmp_path / 'found.png', '--num-images', 2]
    run_tool('draw_detections.py', *arguments, process=True)
    assert cv2.imread(str(tmp_path / 'found.png')).shape[0] > 300


def test_test_time_augmentation(trained_detector, run_tool, tmp_path):
    config, checkpoint = trained_detector
    work = ['--work-dir', tmp_path]
    done = run_tool('test.py', config, checkpoint, '--tta', *work, check=False)
    assert 'error: --tta: mmdet has no test-time augmentation for instance segmentation' in done.stderr
    boxes = tmp_path / 'boxes.py'
    boxes.write_text(f'_base_ = {str(config)!r}\nmodel = dict(roi_head=dict(mask_head=None))\n')
    run_tool('train.py', boxes, *work, '--cfg-options', 'val_evaluator.metric=bbox')
    arguments = [boxes, tmp_path / 'epoch_1.pth', '--tta', *work]
    done = run_tool('test.py', *arguments, '--cfg-options', 'test_evaluator.metric=bbox')
    assert len(printed_ap(done.stdout, 'bbox')) == 6


def test_auto_scale_lr_and_cfg_options(tiny_config, run_tool, tmp_path):
    done = run_tool('train.py', tiny_config(epochs=1), '--auto-scale-lr', '--cfg-options',
                    'optim_wrapper.optimizer.lr=0.004', 'train_dataloader.batch_size=4', process=True)  # fmt: skip
    meta = CheckpointLoader.load_checkpoint(str(tmp_path / 'work' / 'epoch_1.pth'), map_location='cpu')
    assert meta['optimizer']['param_groups'][0]['initial_lr'] == pytest.approx(0.004)
    assert 'LR is set based on batch size of 4' in done.stdout


DIGEST_HOOK = """
import hashlib
from pathlib import Path
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module(force=True)
class DigestHook(Hook):
    priority = 'LOWEST'
    def after_train(self, runner):
        state = runner.model.module.state_dict()
        digest = hashlib.sha256(b''.join(v.numpy().tobytes() for _, v in sorted(state.items()))).hexdigest()
        Path(__file__).with_name(f'digest_of_rank_{get_rank()}').write_text(digest)
"""
DIGEST_CONFIG = """
custom_imports = dict(imports=['fasternet_mm', 'digest'], allow_failed_imports=False)
custom_hooks = [dict(type='ExactResumeHook'), dict(type='SyncBuffersHook'), dict(type='DigestHook')]
find_unused_parameters = False
"""


def test_two_processes_train_and_end_with_the_same_weights(tiny_config, tmp_path, monkeypatch):
    (tmp_path / 'digest.py').write_text(DIGEST_HOOK)
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{REPO}')
    monkeypatch.setenv('PORT', str(29500 + hash(str(tmp_path)) % 1000))
    monkeypatch.setenv('PATH', f'{sys.prefix}/bin', prepend=os.pathsep)
    config = tiny_config(epochs=2, extra=DIGEST_CONFIG)
    done = subprocess.run(
        [REPO / 'tools' / 'dist_train.sh', config, '2'], capture_output=True, text=True, cwd=tmp_path, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    digests = [(tmp_path / f'digest_of_rank_{rank}').read_text() for rank in (0, 1)]
    assert len(digests[0]) == 64 and digests[0] == digests[1]

    done = subprocess.run(
        [REPO / 'tools' / 'dist_test.sh', config, tmp_path / 'work' / 'epoch_2.pth', '2'],
        capture_output=True, text=True, cwd=tmp_path, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(printed_ap(done.stdout, 'bbox')) == 6
