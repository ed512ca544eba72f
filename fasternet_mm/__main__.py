"""``python -m fasternet_mm``: what a bug report should say of the machine and of what importing has changed."""

# not mmengine's collect_env: it starts a compiler, and needs distutils, which Python 3.12 no longer has

import importlib.util
import os
import platform
from pathlib import Path

import torch

from . import machine, patches
from .compat import EXT_NAME, TorchvisionExtFinder
from .hub import config_root
from .version import __version__

_HERE = Path(__file__).parent
_PACKAGES = (
    'torch torchvision mmengine mmcv mmcv-lite mmdet mmpretrain numpy opencv-python setuptools pycocotools '
    'safetensors timm onnx onnxscript onnxruntime openvino nncf'
).split()


def describe() -> str:
    """Return the lines to paste: versions, hardware, the origin of mmcv's operators, folders, and active patches."""
    facts = {
        'fasternet_mm': f'{__version__}, in {_HERE}',
        'python': f'{platform.python_version()} on {platform.platform()}',
        **machine.installed(_PACKAGES),
        'operators of mmcv': _operators(),
        'processor': f'{machine.processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch',
        'instruction sets': f'torch uses {torch.backends.cpu.get_cpu_capability()} of {machine.instruction_sets()}',
        'gpu': _gpus(),
        'configs': str(config_root()),
        'tools': str(config_root().with_name('tools')),
    }
    lines = [f'{name}: {value}' for name, value in facts.items()]
    lines += ['patches in force:', *(f'  {patch.target}: {patch.why}' for patch in patches.active())]
    return '\n'.join(['```', *lines, '```'])


def _gpus() -> str:
    if not torch.cuda.is_available():
        return 'none'
    names = ', '.join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return f'{names}; cuda {torch.version.cuda}, cudnn {torch.backends.cudnn.version()}'


def _operators() -> str:
    origin = importlib.util.find_spec(EXT_NAME).origin
    return f'torchvision, through {origin}' if origin == TorchvisionExtFinder.file else f'compiled, {origin}'


if __name__ == '__main__':
    print(describe())
