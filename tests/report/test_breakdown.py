"""Where the time goes, and what is counted."""

import pytest
import torch
from mmengine.config import Config
from torch.nn.attention import SDPBackend, sdpa_kernel

from fasternet_mm.report import Options, Reporter, from_config, new_report, run_suite, suite
from fasternet_mm.report.measure.breakdown import roofline
from fasternet_mm.report.measure.counting import count_detector, count_parameters, multiply_adds
from fasternet_mm.report.render.markdown import markdown
from fasternet_mm.report.schema import Measurement
from tests.helpers import REPO
from tests.helpers.golden import TABLES

from .measuring import CPU, run


def test_the_floors_under_a_backbone(classifier):
    report = run([classifier], modes=['eager', 'deploy'], batch_sizes=[4], scopes=['backbone', 'roofline'])
    (model,) = report.models
    floors, counted = model.rooflines[0], model.multiply_adds.parts['backbone']
    assert floors.batch_size == 4
    assert floors.arithmetic_floor_ms == pytest.approx(4 * 2 * counted / floors.matmul_gflops / 1e6)
    weights = 4 * sum(p.numel() for m in classifier.model.backbone.modules() if isinstance(m, torch.nn.Conv2d)
                      for p in m.parameters())  # fmt: skip
    assert floors.memory_floor_ms > weights / floors.copy_gb_per_s / 1e6
    assert 'How near the backbones are to the floors' in markdown(report) and 'deploy ' in markdown(report)


def test_floors_for_each_dtype_and_batch_size(classifier):
    settings = dict(modes=['eager'], dtypes=['fp32', 'bf16'], batch_sizes=[1, 4], scopes=['backbone', 'roofline'])
    (model,) = run([classifier], **settings).models
    found = {(floors.dtype, floors.batch_size): floors for floors in model.rooflines}
    assert set(found) == {(row.dtype, row.batch_size) for row in model.measurements}
    assert all(floors.memory_floor_ms > 0 for floors in found.values())


def test_a_detector_its_split_and_its_layers(detector):
    report = run([detector], modes=['eager', 'fused'])
    (model,) = report.models
    assert model.error is None
    assert {row.scope for row in model.measurements} == {'backbone', 'detector'}
    split = model.split
    names = ['preprocessing', 'backbone', 'neck', 'RPN', 'RoI heads', 'post-processing', 'everything else']
    assert list(split.parts) == names and all(value > 0 for value in split.parts.values())
    assert split.total_ms == pytest.approx(sum(split.parts.values()))
    assert split.disagreement == pytest.approx(split.total_ms / split.whole_ms - 1)
    kinds = {layer.kind for layer in model.rooflines[0].layers}
    assert kinds == {'stem', 'BN', 'PConv', 'PWConv', 'merging', 'activation', 'other'}
    assert sum(layer.share for layer in model.rooflines[0].layers) == pytest.approx(1)


def test_table_4s_multiply_adds_are_reproduced():
    columns = {row['backbone']: row for row in TABLES['table4_coco_mask_rcnn_1x']}
    for arch in 'sml':
        path = REPO / 'configs' / f'mask_rcnn_fasternet_{arch}.py'
        with torch.device('meta'):
            model = from_config(Config.fromfile(path), str(path), None).model
        counted, row = count_detector(model, (800, 1280)), columns[f'FasterNet-{arch.upper()}']
        assert counted.table4 / 1e9 == pytest.approx(row['gflops_1280x800'], rel=0.01)
        # the convention that mmdet prints is 7 G above: the mask head's upsampling and its last convolution
        assert (counted.total - counted.table4) / 1e9 == pytest.approx(6.744, abs=1e-3)
        assert sum(counted.parts.values()) == counted.total
        assert round(count_parameters(model) / 1e6, 1) == row['params_m']


def test_layers_are_counted_as_torch_counts(classifier):
    images, row = torch.randn(1, 3, 64, 64), Options(CPU).case(classifier, 'backbone', 'eager', 'fp32', 1).row
    layers = roofline(classifier.model.backbone, images, row, repeats=1).layers
    convolutions = [layer for layer in layers if layer.kind in ('stem', 'PConv', 'PWConv', 'merging')]
    arithmetic = sum(layer.gflops * layer.ms * 1e6 for layer in convolutions)
    assert arithmetic == pytest.approx(2 * multiply_adds(lambda: classifier.model.backbone(images)), rel=1e-6)
    assert not [m for m in classifier.model.modules() if 'forward' in vars(m)]  # nothing stays behind


class _Attention(torch.nn.Module):
    """Attention of one head, as every library writes its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(channels)
        self.qkv = torch.nn.Linear(channels, 3 * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(*self.qkv(self.norm(x))[:, None].chunk(3, -1))


class _Net(torch.nn.Module):
    """One layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        conv = torch.nn.Conv2d
        self.stem = torch.nn.Sequential(conv(3, 8, 4, 4), torch.nn.BatchNorm2d(8), torch.nn.ReLU6())
        self.convs = torch.nn.Sequential(conv(8, 8, 3, groups=8), conv(8, 8, 3, groups=2), conv(8, 16, 1))
        self.attention = _Attention(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(self.convs(self.stem(x)).flatten(2).transpose(1, 2))


def test_any_networks_layers_are_told_apart_by_operator():
    net, images = _Net().eval(), torch.randn(1, 3, 64, 64)
    row = Measurement('backbone', 'eager', 'fp32', 'cpu', 1, [64, 64], False, 1)
    layers = {layer.name: layer for layer in roofline(net, images, row, repeats=1).layers}
    assert {name: layer.kind for name, layer in layers.items()} == {
        'stem.0': 'Conv', 'stem.1': 'BN', 'stem.2': 'activation', 'convs.0': 'DWConv', 'convs.1': 'GConv',
        'convs.2': 'PWConv', 'attention': 'attention', 'attention.norm': 'norm', 'attention.qkv': 'linear',
        'everything else': 'other',
    }  # fmt: skip
    counted = [one for one in layers.values() if one.kind not in ('BN', 'norm', 'activation')]
    arithmetic = sum(layer.gflops * layer.ms * 1e6 for layer in counted)
    with sdpa_kernel(SDPBackend.MATH):
        assert arithmetic == pytest.approx(2 * multiply_adds(lambda: net(images)), rel=1e-6)


def test_a_suites_classifiers_have_layers_in_the_form_that_is_timed(tmp_path):
    options = Options(CPU, modes=['fused'], batch_sizes=[1], scopes=['roofline'], shape=(64, 64))
    reporter = Reporter(new_report(options, [], 'table3'), options, lambda report: None, lambda line: None)
    run_suite(reporter, suite('table3', ['MobileNetV2', 'FasterNet-T0']), tmp_path)
    for model in reporter.report.models:
        (floors,) = model.rooflines
        assert floors.mode == 'fused' and not {'BN'} & {layer.kind for layer in floors.layers}
        assert floors.arithmetic_floor_ms == pytest.approx(
            2 * model.multiply_adds.parts['backbone'] / floors.matmul_gflops / 1e6
        )
