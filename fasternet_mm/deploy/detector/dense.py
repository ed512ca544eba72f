"""Detectors with one dense head: RetinaNet, FCOS, ATSS, RTMDet and others that share mmdet's prediction."""

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn

from ...errors import UserError
from .boxes import clip, highest, require_nms, suppress, with_area

_SHARED = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')


class Dense(nn.Module):
    """A dense head and what mmdet does with its maps, on one image.

    Args:
        model (nn.Module): mmdet's single-stage detector.

    Raises:
        UserError: If its head predicts in another way than mmdet's BaseDenseHead, or by another NMS.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.head, self.settings = model.bbox_head, model.bbox_head.test_cfg
        kind = type(self.head)
        others = [name for name in _SHARED if getattr(kind, name, None) is not getattr(BaseDenseHead, name)]
        if others or getattr(getattr(self.head, 'loss_cls', None), 'custom_cls_channels', False):
            raise UserError(
                f"model.bbox_head.type={kind.__name__}: its predictions are not BaseDenseHead's, so it cannot be "
                'exported as a detector (RetinaNet, FCOS, ATSS and RTMDet can); --what backbone+neck works'
            )
        require_nms(self.settings.nms, 'model.test_cfg.nms')
        self.num_classes = self.head.num_classes
        if self.settings.get('min_bbox_size', -1) > 0:
            raise UserError(
                'model.test_cfg.min_bbox_size must be 0 in an exported detector, which knows no original size'
            )

    def forward(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (N, 4) in an image of H, W, their scores (N,) and labels (N,), by falling score."""
        head, outputs = self.head, self.head(maps)
        factors = outputs[2] if len(outputs) > 2 else [None] * len(maps)
        priors = head.prior_generator.grid_priors([level.shape[2:] for level in outputs[0]], device=maps[0].device)
        levels = [self._candidates(*level) for level in zip(*outputs[:2], factors, priors)]
        boxes, scores, labels = map(torch.cat, zip(*levels))
        boxes = clip(boxes, size)
        if self.settings.get('min_bbox_size', -1) == 0:
            boxes, scores, labels = with_area(0, boxes, scores, labels)
        kept = suppress(boxes, scores, labels, self.settings.nms, self.settings.max_per_img)
        return boxes[kept], scores[kept], labels[kept]

    def _candidates(
        self, logits: Tensor, deltas: Tensor, factors: Tensor | None, priors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and labels of a level above the threshold, of which at most nms_pre are decoded."""
        logits = logits[0].permute(1, 2, 0).reshape(-1, self.head.cls_out_channels)
        scores = logits.sigmoid() if self.head.use_sigmoid_cls else logits.softmax(-1)[:, :-1]
        places, labels = (scores > self.settings.get('score_thr', 0)).nonzero().unbind(1)
        scores = scores[places, labels]
        best = highest(scores, self.settings.get('nms_pre', -1))
        places, labels, scores = places[best], labels[best], scores[best]
        deltas = deltas[0].permute(1, 2, 0).reshape(-1, self.head.bbox_coder.encode_size)[places]
        boxes = self.head.bbox_coder.decode(priors[places], deltas)
        if factors is not None:
            scores = scores * factors[0].flatten()[places].sigmoid()
        return boxes, scores, labels
