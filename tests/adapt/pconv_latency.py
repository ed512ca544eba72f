"""The four examples of docs/pconv.md: their parameters, multiply-adds and latency, before and after.

``python -m tests.adapt.pconv_latency [EXAMPLE ...]`` prints the page's tables: before and after in turn, in eager
PyTorch and in OpenVINO, one image, fp32, as many threads as torch uses.
"""

import copy
import platform
import sys
from collections.abc import Callable
from typing import NamedTuple

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
import numpy as np
import timm
import torch
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torchvision.models import resnet18

from fasternet_mm.adapt import read_config, replace_convs
from fasternet_mm.deploy import openvino_session, switch_to_deploy, to_onnx
from fasternet_mm.deploy.onnx import tensors_of
from fasternet_mm.machine import processor
from fasternet_mm.report.measure.counting import count_parameters, multiply_adds
from fasternet_mm.report.measure.timing import Limits, measure, ratio

LIMITS = Limits(warmup=10, min_seconds=10, repeats=30)


class Example(NamedTuple):
    """How to build a network before and after, and the side of its image in pixels."""

    before: Callable[[], nn.Module]
    after: Callable[[], nn.Module]
    side: int


class Tensors(nn.Module):
    """A network whose outputs are a flat tuple of tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensors_of(self.network(images)))


def replaced(build: Callable[[], nn.Module], **options) -> Callable[[], nn.Module]:
    def after() -> nn.Module:
        model = build()
        replace_convs(model, **options)
        return model

    return after


def darknet() -> nn.Module:
    return timm.create_model('cspdarknet53')


def detector(name: str, **parts: dict) -> nn.Module:
    """Build a stock detector with other settings of its parts."""
    cfg = read_config(name)
    cfg.merge_from_dict(dict(model=parts))
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg.model)


def retinanet(**conv_cfg: dict) -> nn.Module:
    backbone = dict(_delete_=True, type='FasterNet', arch='t0', out_indices=(1, 2, 3))
    neck = dict(in_channels=[80, 160, 320], start_level=0, **conv_cfg)
    return detector('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', backbone=backbone, neck=neck, bbox_head=conv_cfg)


def rtmdet() -> nn.Module:
    return detector('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', backbone=dict(init_cfg=None))


EXAMPLES = {
    "torchvision's ResNet-18": Example(resnet18, replaced(resnet18), 224),
    'RetinaNet-T0, neck and head': Example(retinanet, lambda: retinanet(conv_cfg=dict(type='PConvBlock')), 640),
    "timm's CSPDarkNet-53": Example(darknet, replaced(darknet), 256),
    'RTMDet-tiny, neck': Example(rtmdet, replaced(rtmdet, where=lambda name, conv: name.startswith('neck.')), 640),
}


def counts(name: str) -> str:
    """Return the row of the page's table of an example: parameters and multiply-adds."""
    found = []
    for build in EXAMPLES[name][:2]:
        with torch.device('meta'):
            model, image = build().eval(), torch.zeros(1, 3, EXAMPLES[name].side, EXAMPLES[name].side)
            found.append((count_parameters(model) / 1e6, multiply_adds(lambda: model(image)) / 1e9))  # noqa: B023
    (parameters, adds), (fewer, less) = found
    return f'| {name} | {parameters:.1f} M | {fewer:.1f} M | {adds:.2f} G | {less:.2f} G |'


def latencies(name: str) -> str:
    """Return the row of an example: medians and quartiles in milliseconds, and the ratio with its interval."""
    image = torch.randn(1, 3, EXAMPLES[name].side, EXAMPLES[name].side)
    cells = []
    networks = [Tensors(build().eval()) for build in EXAMPLES[name][:2]]
    sessions = [onnx_of(network, image) for network in networks]
    for before, after in (networks, sessions):
        with torch.inference_mode():
            turns = measure([lambda _: before(image), lambda _: after(image)], torch.device('cpu'), LIMITS)  # noqa: B023
        if turns.error:
            raise turns.error
        times = [one.wall for one in turns.samples]
        for one in times:
            low, median, high = np.percentile(one, [25, 50, 75])
            cells.append(f'{median:.1f} ({low:.1f} to {high:.1f})')
        faster, (low, high) = ratio(*times)
        cells.append(f'{faster:.2f} [{low:.2f}, {high:.2f}]')
    return f'| {name} | {" | ".join(cells)} |'


def onnx_of(network: nn.Module, image: Tensor) -> Callable[[Tensor], list[Tensor]]:
    with torch.no_grad():
        outputs = [f'y{number}' for number, _ in enumerate(network(image))]
    try:
        network = switch_to_deploy(copy.deepcopy(network))
    except ValueError:  # neither a FasterNet nor a PConvBlock: OpenVINO folds BN itself
        pass
    return openvino_session(to_onnx(network, image, outputs))


def main() -> None:
    MMLogger.get_current_instance().setLevel('WARNING')
    names = sys.argv[1:] or list(EXAMPLES)
    print('| | parameters | after | multiply-adds | after |\n|---|---|---|---|---|')
    for name in names:
        print(counts(name), flush=True)
    versions = f'torch {torch.__version__}, Python {platform.python_version()}'
    print(f'\n{processor()}, {torch.get_num_threads()} threads, {versions}')
    print('\n| ms | eager | after | faster | OpenVINO | after | faster |\n|---|---|---|---|---|---|---|')
    for name in names:
        print(latencies(name), flush=True)


if __name__ == '__main__':
    main()
