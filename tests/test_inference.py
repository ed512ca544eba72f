"""mmdet's DetInferencer on a FasterNet Mask R-CNN."""

import numpy as np
from mmdet.apis import DetInferencer


def test_det_inferencer_takes_our_config_and_a_checkpoint_that_mmengine_wrote(trained_detector, tmp_path, sample):
    inferencer = DetInferencer(*map(str, trained_detector), device='cpu', show_progress=False)
    picture = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    for inputs in (picture, str(sample / 'val' / '000001.png')):
        (found,) = inferencer(inputs, pred_score_thr=0.0, out_dir=str(tmp_path / 'out'))['predictions']
        assert len(found['bboxes']) == len(found['labels']) == len(found['scores']) == len(found['masks'])
    assert len(list((tmp_path / 'out' / 'vis').iterdir())) == 2
