"""Packaging; also puts configs and tools into the wheel, under ``fasternet_mm/.mim`` as OpenMMLab's packages do."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithConfigs(build_py):
    def run(self):
        super().run()
        if self.editable_mode:  # an editable install reads configs/ and tools/ where they are
            return
        for folder in ('configs', 'tools'):
            target = Path(self.build_lib, 'fasternet_mm', '.mim', folder)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(HERE / folder, target, ignore=shutil.ignore_patterns('__pycache__'))


setup(
    name='fasternet_mm',
    version=re.search(r"'(.+)'", (HERE / 'fasternet_mm' / 'version.py').read_text()).group(1),
    description='FasterNet (CVPR 2023) for MMDetection 3.x and MMPretrain 1.x',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['fasternet_mm', 'fasternet_mm.*']),
    package_data={'fasternet_mm.report.paper': ['published.json']},
    python_requires='>=3.11',
    # mmcv is not here on purpose: installing must never replace a compiled mmcv. See the extra `lite`.
    install_requires=[
        'torch>=2.1',
        'torchvision>=0.16',
        'mmengine>=0.10.4,<1.0',
        'mmdet>=3.3,<3.4',
        'mmpretrain>=1.2,<1.3',
        'pycocotools',
        'numpy',
        'matplotlib',
        'opencv-python',
        'rich',
        'setuptools<82',  # mmengine reads `mmdet::` configs through pkg_resources
    ],
    extras_require={
        'lite': ['mmcv-lite>=2.1,<2.2'],
        # torch >= 2.5 for the exporter
        'onnx': ['onnx', 'onnxscript', 'onnxruntime'],
        'openvino': ['openvino'],
        'tests': ['pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'timm', 'safetensors'],
    },
    cmdclass={'build_py': BuildWithConfigs},
    zip_safe=False,
)
