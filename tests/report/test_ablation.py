"""Table 5: FasterNets with other parts, those of the paper quoted, those of ours said to be ours."""

import pytest
import torch
from mmpretrain.models.utils import LayerNorm2d
from torch import nn

from fasternet_mm.models import PartialConv2d
from fasternet_mm.report import suite
from fasternet_mm.report.measure.counting import count_classifier

ROWS = {row.name: row for row in suite('table5')}
BUILT = [name for name, row in ROWS.items() if row.build]


def built(name: str) -> nn.Module:
    with torch.device('meta'):
        return ROWS[name].build()


def multiply_adds(name: str) -> int:
    return count_classifier(built(name), (224, 224)).total


def test_accuracy_is_quoted_where_the_paper_has_the_row():
    quoted = {name: row.published.top1 for name, row in ROWS.items() if row.published}
    assert quoted == {
        'T0': 71.9, 'T0 r=1/2': 71.7, 'T0 r=1/8': 71.3, 'T0 LN': 71.9, 'T0 ReLU': 71.3,
        'T2': 78.9, 'T2 GELU': 78.7, 'T0 ReLU, modified': 71.7,
    }  # fmt: skip


def test_what_is_ours_is_labelled():
    labelled = {name for name in BUILT if any('ours' in label for label in ROWS[name].labels)}
    assert labelled == {name for name in BUILT if 'r=' in name} | {'T0 GN'}
    # also beside the quoted figures of a net that the paper changed
    assert all('does not say' in ROWS[f'T0 r=1/{n}'].published.note for n in (2, 8))


def test_the_row_that_the_paper_does_not_describe_is_listed():
    (missing,) = ROWS.keys() - set(BUILT)
    assert missing == 'T0 ReLU, modified' and 'does not say' in ROWS[missing].reason


@pytest.mark.parametrize('n', [2, 8])
def test_other_ratios_at_equal_width_and_at_equal_cost(n):
    t0 = multiply_adds('T0')
    assert multiply_adds(f'T0 r=1/{n}') == pytest.approx(t0, rel=0.025)
    assert abs(multiply_adds(f'T0 r=1/{n}, equal width') / t0 - 1) > 0.05
    for name in (f'T0 r=1/{n}', f'T0 r=1/{n}, equal width'):
        for module in built(name).modules():
            if isinstance(module, PartialConv2d):
                assert module.conv_channels == (module.conv_channels + module.pass_channels) // n


@pytest.mark.parametrize(
    'name, norm, activation',
    [
        ('T0', nn.BatchNorm2d, nn.GELU),
        ('T0 LN', LayerNorm2d, nn.GELU),
        ('T0 GN', nn.GroupNorm, nn.GELU),
        ('T0 ReLU', nn.BatchNorm2d, nn.ReLU),
        ('T2', nn.BatchNorm2d, nn.ReLU),
        ('T2 GELU', nn.BatchNorm2d, nn.GELU),
    ],
)
def test_norms_and_activations(name, norm, activation):
    kinds = {type(module) for module in built(name).modules()}
    norms, activations = (nn.BatchNorm2d, LayerNorm2d, nn.GroupNorm), (nn.ReLU, nn.GELU)
    assert kinds & set(norms) == {norm} and kinds & set(activations) == {activation}
    assert ROWS[name].reference == name[:2]
