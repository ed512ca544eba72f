"""A whole detector as one plain function of tensors: a picture's pixels to boxes, scores, labels and masks."""

from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from torch import Tensor, nn

from ...errors import UserError
from .dense import Dense
from .pixels import Pixels
from .two_stage import TwoStage


class DetectorGraph(nn.Module):
    """A detector's prediction over its own modules, in operators that can be exported.

    mmdet's own prediction cannot be traced: it branches on the number of boxes, and runs dead code while exporting.

    Args:
        model (nn.Module): Faster, Mask or Cascade R-CNN, or a detector with one dense head, of mmdet.

    Shape:
        Input: (1, H, W, 3), uint8, as OpenCV reads pixels. Output: boxes (N, 4), x1 y1 x2 y2 in those pixels, scores
        (N,) falling, labels (N,), and for instance segmentation masks (N, h, w), probabilities in each box.

    Raises:
        UserError: Names the part that cannot be exported.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        predict = getattr(type(model), 'predict', None)
        head = {TwoStageDetector.predict: TwoStage, SingleStageDetector.predict: Dense}.get(predict)
        if head is None:
            raise UserError(
                f"model.type={type(model).__name__}: only mmdet's Faster, Mask and Cascade R-CNN and detectors with "
                'one dense head can be exported whole; --what backbone+neck works'
            )
        self.head = head(model)
        self.pixels = Pixels(model.data_preprocessor)
        self.backbone, self.neck = model.backbone, model.neck if model.with_neck else nn.Identity()
        self.outputs = ['boxes', 'scores', 'labels', 'masks'][: 4 if getattr(self.head, 'mask_heads', None) else 3]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.head(self.neck(self.backbone(self.pixels(image))), image.shape[1:3])
