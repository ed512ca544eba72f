"""Packaging; also puts configs and tools into the wheel, under ``fasternet_mm/.mim`` as OpenMMLab's packages do."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
# a package index shows the README alone: links into the repository become their text
README = re.sub(r'!?\[([^]]*)\]\((?!https?:)[^)]*\)', r'\1', (HERE / 'README.md').read_text())


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
    long_description=README,
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    project_urls={
        'Paper': 'https://arxiv.org/abs/2303.03667',
        'Official code': 'https://github.com/JierunChen/FasterNet',
    },
    keywords='fasternet, backbone, object detection, instance segmentation, mmdetection, mmpretrain',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'License :: OSI Approved :: Apache Software License',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['fasternet_mm', 'fasternet_mm.*']),
    package_data={'': ['*.json', 'py.typed']},
    python_requires='>=3.11',
    # mmcv is not here on purpose: installing must never replace a compiled mmcv. See the extra `lite`.
    install_requires=[
        # lower bounds are what requirements/oldest.txt pins
        'torch>=2.6',
        'torchvision>=0.21',
        'mmengine>=0.10.4,<1.0',
        'mmdet>=3.3,<3.4',
        'mmpretrain>=1.2,<1.3',
        'pycocotools>=2.0.7',
        'numpy>=1.26',
        'matplotlib>=3.8',
        'opencv-python>=4.8.1.78',
        'rich>=13.4.2',
        'setuptools<82',  # mmengine reads `mmdet::` configs through pkg_resources
    ],
    extras_require={
        'lite': ['mmcv-lite>=2.1,<2.2'],
        'mmseg': ['mmsegmentation==1.2.2', 'ftfy', 'regex'],  # the two it imports, but does not ask for
        'onnx': ['onnx', 'onnxscript', 'onnxruntime'],
        'openvino': ['openvino'],
        'int8': ['nncf', 'openvino'],
        'study': ['grad-cam'],  # tools/study.py features; brings opencv-python-headless
        'tests': ['pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'timm', 'safetensors'],
    },
    cmdclass={'build_py': BuildWithConfigs},
    zip_safe=False,
)
