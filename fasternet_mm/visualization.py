"""Pictures of what a detector finds."""

import io
from pathlib import Path

import mmcv
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmdet.apis import inference_detector
from mmdet.registry import DATASETS, VISUALIZERS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from .engine.runner import build_model
from .files import AtomicLocalBackend


def draw_detections(
    cfg: Config,
    checkpoint: str,
    out: str | Path,
    num_images: int = 6,
    score_thr: float = 0.5,
    device: str | None = None,
) -> None:
    """Draw ground truth (upper row) and detections (lower row) on the first test images.

    Args:
        cfg (Config): A detector's config; pictures are taken from its ``test_dataloader``.
        checkpoint (str): File or URL.
        out (str | Path): Picture to write; its ending chooses the format.
        num_images (int): Defaults to 6.
        score_thr (float): Lowest score to draw. Defaults to 0.5.
        device (str, optional): Defaults to a GPU if there is one.

    Raises:
        UserError: If `cfg` is no config of mmdet or mmpretrain.
        CheckpointError: If the checkpoint cannot be had, or does not fit.
    """
    init_default_scope('mmdet')
    model = build_model(cfg, checkpoint).to(device or ('cuda:0' if torch.cuda.is_available() else 'cpu'))
    model.cfg = cfg  # which inference_detector takes its pipeline from
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    visualizer = VISUALIZERS.build(dict(type='DetLocalVisualizer', name='detections', line_width=1))
    visualizer.dataset_meta = dataset.metainfo

    def drawn(picture, sample):
        visualizer.add_datasample(
            '', picture, sample, pred_score_thr=score_thr, draw_gt=sample is truth, draw_pred=sample is not truth
        )
        return visualizer.get_image()

    num_images = min(num_images, len(dataset))
    figure = Figure(figsize=(2.6 * num_images, 5.5), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, num_images, squeeze=False)
    for column in range(num_images):
        truth = dataset[column]['data_samples']  # mmdet's test pipelines do not resize the ground truth
        truth.gt_instances.bboxes = truth.gt_instances.bboxes.tensor
        picture = mmcv.imread(truth.img_path, channel_order='rgb')
        axes[0, column].imshow(drawn(picture, truth))
        axes[1, column].imshow(drawn(picture, inference_detector(model, truth.img_path)))
    for row, title in zip(axes, ('ground truth', f'detections, score >= {score_thr}')):
        row[0].set_ylabel(title)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    drawing = io.BytesIO()
    figure.savefig(drawing, format=Path(out).suffix[1:] or 'png', dpi=120)
    AtomicLocalBackend().put(drawing.getvalue(), out)
