"""PConvBlocks in the place of the convolutions of any network: which, from what start, and what is said of each."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fasternet_mm import PConvBlock
from fasternet_mm.adapt import replace_convs
from fasternet_mm.errors import UserError
from tests.adapt import pconv_latency
from tests.helpers import REPO, relative_error
from tests.helpers.networks import settled, t_shaped_filter


def by_layer(rows) -> dict:
    return {row.layer: row for row in rows}


class Plain(nn.Module):
    """Convolutions of every kind; `twice` runs twice, `never` not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.twice = nn.Conv2d(16, 16, 5, padding=2)
        self.again = self.twice
        self.never = nn.Conv2d(16, 16, 3, padding=1)
        self.point = nn.Conv2d(16, 16, 1)

    def forward(self, x):
        x = self.norm(self.down(self.stem(x).relu_())).relu_()
        return self.point(self.again(self.twice(x).relu_()))


def test_rows_say_what_became_of_each_convolution():
    model, images = settled(Plain()).train(), torch.randn(2, 3, 16, 16)
    old = copy.deepcopy(model)
    rows = by_layer(replace_convs(model, samples=images))
    assert {layer: row.kept for layer, row in rows.items()} == {
        'stem': 'its 3 input channels are fewer than n_div=4', 'down': None, 'twice': None,
        'never': 'the samples do not reach it', 'point': 'its kernel is 1x1',
    }  # fmt: skip
    assert type(model.down) is PConvBlock and model.down.stride == (2, 2) and model.down.pwconv.bias is None
    assert model.again is model.twice and model.twice.kernel_size == (5, 5) and model.twice.pwconv.bias is not None
    assert type(model.never) is nn.Conv2d
    assert all(module.training for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(model.norm.buffers(), old.norm.buffers(), strict=True))
    assert [rows['twice'].parameters, rows['down'].parameters] == [(6416, 16 * 25 + 272), (1152, 2 * 2 * 9 + 128)]
    for after, net in enumerate((old, model)):
        with FlopCounterMode(display=False) as counter:
            net(images[:1])
        counted = sum(row.multiply_adds[after] for row in rows.values() if row.multiply_adds)
        assert counted == counter.get_total_flops() // 2
    model(images).sum().backward()
    assert all(parameter.grad is not None for parameter in model.twice.parameters())


def hooked() -> nn.Conv2d:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    conv.register_forward_hook(lambda *args: None)
    return conv


class Own(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    ('conv', 'reason'),
    [
        (nn.Conv2d(8, 8, 3), r'its padding is \(0, 0\) of zeros, not 1 of zeros'),
        (nn.Conv2d(8, 8, 3, padding='same'), 'its padding is same'),
        (nn.Conv2d(8, 8, 3, padding=1, padding_mode='reflect'), r'its padding is \(1, 1\) of reflect'),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2), 'its dilation is'),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), 'it has 8 groups'),
        (nn.Conv2d(8, 8, (1, 3), padding=(0, 1)), 'its kernel is 1x3'),
        (nn.Conv2d(8, 8, 2), 'its kernel is 2x2, not odd and square'),
        (hooked(), 'it has hooks'),
        (nn.utils.weight_norm(nn.Conv2d(8, 8, 3, padding=1)), 'it has hooks'),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1)), 'its class is ParametrizedConv2d'),
        (Own(8, 8, 3, padding=1), 'its class is Own, not nn.Conv2d'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
@pytest.mark.filterwarnings('ignore:.*weight_norm.*is deprecated')
def test_what_cannot_be_replaced_is_kept_and_says_why(conv, reason):
    model = nn.Sequential(conv)
    (row,) = replace_convs(model)
    assert model[0] is conv and re.match(reason, row.kept)
    assert row.multiply_adds is None and row.error is None and row.parameters[0] == row.parameters[1]


def test_where_chooses():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    rows = replace_convs(model, where=lambda name, conv: name == '1', n_div=2)
    assert [row.kept for row in rows] == ["not chosen by 'where'", None]
    assert type(model[0]) is nn.Conv2d and model[1].pconv.conv_channels == 4


def test_a_second_call_finds_nothing_left():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    replace_convs(model)
    block = model[0]
    assert [row.kept for row in replace_convs(model)] == ['it is the convolution of a PConv', 'its kernel is 1x1']
    assert model[0] is block


def test_the_new_layer_keeps_dtype_and_device():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)).double().to('meta').eval()
    replace_convs(model)
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float64, 'meta')}
    assert not model[0].pconv.training


@torch.no_grad()
def test_what_was_blocks_all_along_is_found_again():
    """T-shaped filters are replaced without a loss, across strides, norms and activations that overwrite."""
    model, images = settled(Plain()), torch.randn(8, 3, 24, 24)
    for name in ('down', 'twice'):
        conv = getattr(model, name)
        conv.weight.copy_(t_shaped_filter(PConvBlock(conv.in_channels, 16, conv.kernel_size)))
    old = model(images)
    rows = by_layer(replace_convs(model, samples=images.split(3)))
    assert max(rows['down'].error, rows['twice'].error) < 1e-6
    assert relative_error(model(images), old) < 1e-5


@torch.no_grad()
def test_a_layer_makes_up_for_some_of_what_those_before_it_have_lost():
    layers = [layer for _ in range(4) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())]
    old, images = (
        settled(nn.Sequential(*layers)),
        torch.randn(16, 8, 16, 16, generator=torch.Generator().manual_seed(0)),
    )
    model, alone, fresh = (copy.deepcopy(old) for _ in range(3))
    rows = replace_convs(model, samples=images)
    for row in rows:  # fitted as if the layers before it were the old ones
        single = copy.deepcopy(old)
        replace_convs(single, where=lambda name, conv, row=row: name == row.layer, samples=images)
        alone[int(row.layer)] = single[int(row.layer)]
    replace_convs(fresh)
    errors = [relative_error(net(images), old(images)) for net in (model, alone, fresh)]
    assert errors[0] < errors[1] < errors[2]
    # the last row's error is of the network, but for the activation after it
    assert relative_error(model[:-1](images), old[:-1](images)) == pytest.approx(rows[-1].error, rel=1e-4)


@pytest.mark.parametrize(
    ('samples', 'message'),
    [
        ([], 'samples must hold at least one batch'),
        ([dict(inputs=1)], 'samples must be batches of images, .* but one is dict'),
        (torch.zeros(3, 8, 8), r'but one is \(3, 8, 8\)'),
    ],
)
def test_samples_that_are_none(samples, message):
    model = Plain()
    before = list(model.modules())
    with pytest.raises(UserError, match=message):
        replace_convs(model, samples=samples)
    assert list(model.modules()) == before


def test_a_convolution_is_no_network():
    with pytest.raises(UserError, match='a convolution alone is replaced by a PConvBlock'):
        replace_convs(nn.Conv2d(8, 8, 3, padding=1))


@pytest.mark.parametrize('n_div', [0, 2.0, True])
def test_n_div_is_checked_first(n_div):
    with pytest.raises(ValueError, match='n_div must be an int of at least 1'):
        replace_convs(Plain(), n_div=n_div)


class Choosy(nn.Module):
    """Runs its second layer on other pixels where its first one is another, as detectors do on what they find."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        return self.second(x[..., : 8 if type(self.first) is nn.Conv2d else 7])


def test_a_layer_that_runs_elsewhere_in_the_replaced_network_is_named_and_nothing_changes():
    model = settled(Choosy())
    with pytest.raises(UserError, match='second gives .* leave it out by `where`'):
        replace_convs(model, samples=torch.randn(1, 8, 8, 8))
    assert type(model.first) is nn.Conv2d and not model.first._forward_hooks
    rows = replace_convs(model, where=lambda name, conv: name == 'first', samples=torch.randn(1, 8, 8, 8))
    assert [row.kept is None for row in rows] == [True, False]


@pytest.mark.parametrize('name', pconv_latency.EXAMPLES)
def test_the_pages_table_is_counted(name):
    assert pconv_latency.counts(name) in (REPO / 'docs' / 'pconv.md').read_text().splitlines()
