"""Faster, Mask and Cascade R-CNN: proposals, and the box and mask heads on them."""

from collections.abc import Sequence

import torch
from mmcv.ops import RoIAlign
from mmdet.models.dense_heads import RPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor, nn
from torchvision.ops import roi_align

from ...errors import UserError
from .boxes import clip, highest, require_nms, suppress, with_area


def _require(part: str, module: nn.Module, parent: type, *methods: str) -> None:
    """Raise UserError if a part of a detector is not mmdet's class, or replaces one of its methods."""
    replaced = [name for name in methods if getattr(type(module), name, None) is not getattr(parent, name)]
    if not isinstance(module, parent) or replaced:
        what = f'replaces {", ".join(replaced)} of' if replaced and isinstance(module, parent) else 'is not'
        raise UserError(
            f'model.{part}.type={type(module).__name__} {what} {parent.__name__}, so that it cannot be exported as a '
            'detector; --what backbone+neck works'
        )


class Proposals(nn.Module):
    """The region proposal network and what mmdet does with its maps, on one image.

    Args:
        head (RPNHead): mmdet's.

    Raises:
        UserError: If it predicts in another way than mmdet's RPNHead, or by another NMS.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        _require('rpn_head', head, RPNHead, '_predict_by_feat_single', '_bbox_post_process')
        _require('rpn_head', head, BaseDenseHead, 'predict', 'predict_by_feat')
        require_nms(head.test_cfg.nms, 'model.test_cfg.rpn.nms')
        self.head, self.settings = head, head.test_cfg

    def forward(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Return at most max_per_img proposals (N, 4) in an image of H, W."""
        logits, deltas = self.head(maps)
        priors = self.head.prior_generator.grid_priors([level.shape[2:] for level in logits], device=maps[0].device)
        boxes, scores, levels = map(torch.cat, zip(*map(self._best, range(len(maps)), logits, deltas, priors)))
        boxes = clip(boxes, size)
        if self.settings.get('min_bbox_size', -1) >= 0:
            boxes, scores, levels = with_area(self.settings.min_bbox_size, boxes, scores, levels)
        return boxes[suppress(boxes, scores, levels, self.settings.nms, self.settings.max_per_img)]

    def _best(self, level: int, logits: Tensor, deltas: Tensor, priors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and level of the nms_pre best anchors of a level."""
        logits = logits[0].permute(1, 2, 0).reshape(-1, self.head.cls_out_channels)
        scores = logits.sigmoid()[:, 0] if self.head.use_sigmoid_cls else logits.softmax(-1)[:, 0]
        if self.settings.get('nms_pre', -1) > 0:
            best = highest(scores, self.settings.nms_pre)
        else:
            best = torch.arange(scores.shape[0])
        deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)[best]
        return self.head.bbox_coder.decode(priors[best], deltas), scores[best], torch.full_like(best, level)


class _Pooling(nn.Module):
    """RoIAlign of each box from the pyramid level of its size, as mmdet's SingleRoIExtractor."""

    def __init__(self, part: str, extractor: nn.Module) -> None:
        super().__init__()
        _require(part, extractor, SingleRoIExtractor, 'forward', 'map_roi_levels')
        for layer in extractor.roi_layers:
            if type(layer) is not RoIAlign or layer.pool_mode != 'avg':
                raise UserError(f'model.{part}.roi_layer: only RoIAlign that averages can be exported')
        self.extractor = extractor

    def forward(self, maps: tuple[Tensor, ...], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, C, h, w) level by level, and which box each is of."""
        layers, rois = self.extractor.roi_layers, _rois(boxes)
        if len(layers) == 1:
            return self._pooled(layers[0], maps[0], rois), torch.arange(boxes.shape[0])
        levels = self.levels_of(boxes)
        orders = [(levels == level).nonzero()[:, 0] for level in range(len(layers))]
        pooled = [self._pooled(layer, level, rois[order]) for layer, level, order in zip(layers, maps, orders)]
        return torch.cat(pooled), torch.cat(orders)

    def levels_of(self, boxes: Tensor) -> Tensor:
        """Return which level of the pyramid each box (N, 4) is pooled from."""
        return self.extractor.map_roi_levels(_rois(boxes), len(self.extractor.roi_layers))

    @staticmethod
    def _pooled(layer: RoIAlign, level: Tensor, rois: Tensor) -> Tensor:
        return roi_align(
            level, rois, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
        )  # torchvision's own, which the exporter knows


def _rois(boxes: Tensor) -> Tensor:
    """Return boxes (N, 4) with the number of their image, 0, before them."""
    return torch.cat([boxes.new_zeros(boxes.shape[0], 1), boxes], 1)


class TwoStage(nn.Module):
    """Proposals, boxes of one stage or a cascade, and masks, on one image.

    Args:
        model (nn.Module): mmdet's two-stage detector.

    Raises:
        UserError: Names the part that predicts in another way than mmdet's Faster, Mask or Cascade R-CNN.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not model.with_rpn:
            raise UserError(f'model.type={type(model).__name__}: without an rpn_head, proposals are not in the picture')
        head = model.roi_head
        self.cascade = isinstance(head, CascadeRoIHead)
        methods = ('predict', 'predict_bbox', 'predict_mask', '_bbox_forward', '_mask_forward')
        _require('roi_head', head, CascadeRoIHead if self.cascade else StandardRoIHead, *methods)
        if head.with_shared_head:
            raise UserError('model.roi_head.shared_head: a head on C4 cannot be exported as a detector')
        self.settings = head.test_cfg
        require_nms(self.settings.nms, 'model.test_cfg.rcnn.nms')
        self.proposals = Proposals(model.rpn_head)
        self.box_heads = self._parts(head.bbox_head)
        self.box_pooling = nn.ModuleList(
            _Pooling('roi_head.bbox_roi_extractor', one) for one in self._parts(head.bbox_roi_extractor)
        )
        for one in self.box_heads:
            _require('roi_head.bbox_head', one, BBoxHead, 'predict_by_feat', '_predict_by_feat_single')
            if one.custom_activation or not one.with_reg:
                raise UserError(f'model.roi_head.bbox_head.type={type(one).__name__}: only softmax and boxes work')
        self.num_classes = self.box_heads[-1].num_classes
        self.mask_heads, self.mask_pooling = nn.ModuleList(), nn.ModuleList()
        if head.with_mask:
            self.mask_heads = self._parts(head.mask_head)
            self.mask_pooling = nn.ModuleList(
                _Pooling('roi_head.mask_roi_extractor', one) for one in self._parts(head.mask_roi_extractor)
            )
            for one in self.mask_heads:
                _require('roi_head.mask_head', one, FCNMaskHead, 'predict_by_feat', '_predict_by_feat_single')

    def _parts(self, part: nn.Module) -> Sequence[nn.Module]:
        return part if self.cascade else nn.ModuleList([part])

    def forward(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return boxes (N, 4) in an image of H, W, scores (N,), labels (N,) and, with mask heads, masks (N, h, w)."""
        boxes, scores, labels = self._detections(maps, self.proposals(maps, size), size)
        if not self.mask_heads:
            return boxes, scores, labels
        return boxes, scores, labels, self._masks(maps, boxes, labels)

    def _detections(
        self, maps: tuple[Tensor, ...], boxes: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine proposals stage by stage (one but in a cascade), and keep the detections."""
        sums = 0
        for stage, (pooling, head) in enumerate(zip(self.box_pooling, self.box_heads)):
            features, order = pooling(maps, boxes)
            boxes = boxes[order]
            logits, deltas = head(features)
            sums = logits if stage == 0 else sums[order] + logits
            if stage < len(self.box_heads) - 1:
                boxes = self._decoded(head, boxes, deltas, torch.arange(boxes.shape[0]), logits[:, :-1].argmax(1), size)
        scores = (sums / len(self.box_heads)).softmax(-1)[:, :-1]
        places, labels = (scores > self.settings.score_thr).nonzero().unbind(1)
        scores = scores[places, labels]
        boxes = self._decoded(head, boxes, deltas, places, labels, size)
        kept = suppress(boxes, scores, labels, self.settings.nms, self.settings.max_per_img)
        return boxes[kept], scores[kept], labels[kept]

    @staticmethod
    def _decoded(
        head: nn.Module, boxes: Tensor, deltas: Tensor, places: Tensor, labels: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Return the boxes that a head makes of those at `places` for their labels."""
        if head.reg_class_agnostic:
            deltas = deltas[places]
        else:
            deltas = deltas.unflatten(1, (-1, 4))[places, labels]
        return clip(head.bbox_coder.decode(boxes[places], deltas), size)

    def _masks(self, maps: tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the probabilities (N, h, w) of each box's own class, their mean in a cascade."""
        stages = []
        for pooling, head in zip(self.mask_pooling, self.mask_heads):
            features, order = pooling(maps, boxes)
            logits = head(features)[order.argsort()]  # back in the order of the boxes
            own = torch.zeros_like(labels) if head.class_agnostic else labels
            stages.append(logits[torch.arange(boxes.shape[0]), own].sigmoid())
        return torch.stack(stages).mean(0) if len(stages) > 1 else stages[0]
