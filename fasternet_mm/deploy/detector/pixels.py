"""Preprocessing inside the graph: from pixels as OpenCV reads them to what the backbone takes."""

import math

import torch
from mmdet.models import DetDataPreprocessor
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import UserError


class Pixels(nn.Module):
    """Channel order, normalisation, and padding at the right and below, as mmdet's preprocessor does them.

    Args:
        preprocessor (DetDataPreprocessor): Of the detector.

    Shape:
        Input: (1, H, W, 3), uint8, BGR. Output: (1, 3, H', W'), where H' and W' are multiples of the divisor.

    Raises:
        UserError: If the preprocessor is of another class.
    """

    def __init__(self, preprocessor: nn.Module) -> None:
        super().__init__()
        if type(preprocessor) is not DetDataPreprocessor:
            raise UserError(
                f'model.data_preprocessor.type={type(preprocessor).__name__}: only DetDataPreprocessor can be exported'
            )
        self.swap = preprocessor._channel_conversion
        self.divisor = math.lcm(preprocessor.pad_size_divisor, 32)  # necks that concatenate levels take nothing else
        self.pad_value = float(preprocessor.pad_value)
        # (3, 1, 1), or (1, 1, 1) for gray images
        self.register_buffer('mean', preprocessor.mean if preprocessor._enable_normalize else torch.zeros(3, 1, 1))
        self.register_buffer('std', preprocessor.std if preprocessor._enable_normalize else torch.ones(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        image = image.permute(0, 3, 1, 2)
        if self.swap:
            image = torch.stack([image[:, 2], image[:, 1], image[:, 0]], 1)
        image = (image.float() - self.mean) / self.std
        below, right = (-side % self.divisor for side in image.shape[2:])
        return F.pad(image, (0, right, 0, below), value=self.pad_value)
