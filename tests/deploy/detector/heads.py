"""Export each kind of detector that is supported, with free sizes, and print a table of how its file agrees with mmdet.

    python -m tests.deploy.detector.heads [--only NAME ...]

Weights are random, and made to find something; it takes a minute or two a detector on two cores, and is not part of the
suite. The backbones of the last rows are mmdet's own.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from fasternet_mm.deploy import export_detector
from fasternet_mm.deploy.detector.compare import batch_of
from fasternet_mm.report.measure.detections import make_detections
from tests.helpers.detectors import STOCK, finding, noise

WHOLE = {
    'Mask R-CNN, ResNet-50': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN, Swin-T': 'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'RetinaNet, PVT-Tiny': 'pvt/retinanet_pvt-t_fpn_1x_coco.py',
    'RTMDet-tiny, CSPNeXt': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
}
SIZE = (320, 384)


def build(name: str) -> tuple[nn.Module, Config]:
    """Return a detector that finds something, and its config."""
    if name in STOCK:
        return finding(name, SIZE)
    torch.manual_seed(0)
    cfg = Config.fromfile(Config._get_cfg_path(f'mmdet::{WHOLE[name]}', '')[0])
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model).eval()
    make_detections(model, [batch_of(noise(SIZE))])
    return model, cfg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=[*STOCK, *WHOLE], default=[*STOCK, *WHOLE])
    rows = ['| detector | runtime | detections equal | at a threshold | boxes, px | scores | mask pixels | export, s |']
    rows.append('|---|---|---|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2):
            cv2.imwrite(f'{folder}/{number}.png', noise(SIZE, number)[0])
        for name in parser.parse_args().only:
            model, cfg = build(name)
            for transform in cfg.test_dataloader.dataset.pipeline:
                if transform['type'] == 'Resize':
                    transform['scale'] = SIZE[::-1]
            start = time.perf_counter()
            try:
                found = export_detector(model, cfg, {}, Path(folder, f'{name}.onnx'), SIZE, True, images=Path(folder))
            except Exception as error:
                rows.append(f'| {name} | - | {type(error).__name__}: {str(error).splitlines()[0][:120]} | | | | | |')
                continue
            taken = time.perf_counter() - start
            for runtime, one in found.items():
                pixels = f'{one.undecided_pixels} of {one.pixels} at a threshold' if one.pixels else '-'
                rows.append(
                    f'| {name} | {runtime} | {one.detections} | {one.undecided} | {one.box:.0e} | {one.score:.0e} | '
                    f'{pixels} | {taken:.0f} |'
                )
    print('\n'.join(rows))


if __name__ == '__main__':
    main()
