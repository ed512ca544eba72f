"""Table 1: stacks of ten layers that compute what they say, count as the paper counts, and are told apart."""

from collections import defaultdict
from statistics import mean

import pytest
import torch
from torch import nn

from fasternet_mm.errors import UserError
from fasternet_mm.models import PartialConv2d
from fasternet_mm.report import suite
from fasternet_mm.report.measure.counting import count_classifier, memory_access
from fasternet_mm.report.paper import operators
from fasternet_mm.report.render.operators import quotients

ROWS = {row.name: row for row in suite('table1')}
SIZES = ((96, 56), (192, 28), (384, 14), (768, 7))
# the paper's averages over its four sizes, in GMAC/s
AVERAGES = {
    'Conv': (10151, 71.89, 3.95),
    'GConv': (1833, 25.93, 1.92),
    'DWConv': (313, 6.42, 0.12),
    'PConv': (3274, 39.91, 2.73),
}


def image(name: str, device: str = 'cpu') -> torch.Tensor:
    row = ROWS[name]
    return torch.randn(1, row.channels, *row.shape, generator=torch.Generator().manual_seed(1)).to(device)


def test_every_operator_at_every_size_in_turn_with_pconv_of_its_size():
    forms = [*AVERAGES, 'PConv slicing', 'PConv in place']
    assert list(ROWS) == [f'{form} {channels}x{size}' for form in forms for channels, size in SIZES]
    for row in ROWS.values():
        assert row.reference == f'PConv {row.channels}x{row.shape[0]}' and row.build is not None
        assert bool(row.published) == (row.operator in AVERAGES)


def test_the_quoted_figures_have_the_papers_averages():
    found = defaultdict(list)
    for row in ROWS.values():
        if row.published:
            found[row.operator].append(list(quotients(row.published).values()))
    for operator, averages in AVERAGES.items():
        # the paper cuts its digits off, and does not round
        assert [mean(column) for column in zip(*found[operator])] == pytest.approx(averages, rel=0.02, abs=0.01)


@pytest.mark.parametrize('name', [name for name, row in ROWS.items() if row.published])
def test_multiply_adds_are_the_papers(name):
    row = ROWS[name]
    with torch.device('meta'):
        stack = row.build()
    counted = count_classifier(stack, row.shape, row.channels)
    assert counted.total / 1e9 == pytest.approx(row.published.gflops, rel=5e-3)


@pytest.mark.parametrize('channels, size', SIZES)
def test_memory_access_by_the_papers_equations(channels, size):
    pixels, convolved = size * size, channels // 4
    accesses = {
        'Conv': pixels * 2 * channels + 9 * channels**2,
        'GConv': pixels * 2 * channels + 9 * channels**2 // 16,
        'DWConv': pixels * 2 * channels + 9 * channels,
        'PConv': pixels * 2 * convolved + 9 * convolved**2,
    }
    for operator, layer in accesses.items():
        with torch.device('meta'):
            stack = ROWS[f'{operator} {channels}x{size}'].build()
        assert memory_access(stack, (size, size)) == 10 * layer


@pytest.mark.parametrize('form', ['PConv slicing', 'PConv in place'])
def test_the_forms_of_pconv_are_one_function(form):
    given = image('PConv 384x14')
    kept = given.clone()
    with torch.no_grad():
        out = ROWS[f'{form} 384x14'].build()(given)
        torch.testing.assert_close(out, ROWS['PConv 384x14'].build()(kept))
    assert torch.equal(given, kept)


def test_a_form_that_computes_something_else_is_not_timed(monkeypatch):
    monkeypatch.setattr(operators._SlicedPConv, 'forward', lambda self, x: 2 * PartialConv2d.forward(self, x))
    with pytest.raises(UserError, match='PConv slicing is not PConv: its outputs differ by .* so it is not timed'):
        ROWS['PConv slicing 768x7'].build()


@pytest.mark.parametrize('operator', [*AVERAGES, 'PConv in place'])
def test_values_keep_their_size_through_ten_layers(operator):
    stack = ROWS[f'{operator} 768x7'].build()
    assert not any(module.bias is not None for module in stack.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        assert 0.05 < stack(image(f'{operator} 768x7')).std() < 20
