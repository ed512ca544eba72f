"""From a trained FasterNet to its fastest equal form, and to ONNX."""

from .cuda_graphs import CudaGraphs
from .detector import export_detector
from .export import PARTS, export_onnx, provenance
from .form import has_deploy_form, switch_to_deploy
from .onnx import onnxruntime_session, openvino_session, require_packages, to_onnx

__all__ = [
    'PARTS',
    'CudaGraphs',
    'export_detector',
    'export_onnx',
    'has_deploy_form',
    'onnxruntime_session',
    'openvino_session',
    'provenance',
    'require_packages',
    'switch_to_deploy',
    'to_onnx',
]
