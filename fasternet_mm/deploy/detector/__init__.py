"""A whole detector as one ONNX file, proved equal to mmdet's own predictions."""

from .compare import Agreement
from .export import export_detector
from .graph import DetectorGraph

__all__ = ['Agreement', 'DetectorGraph', 'export_detector']
