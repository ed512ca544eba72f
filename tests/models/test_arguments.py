"""A wrong argument is one ValueError that names it, what was given and what was expected, before anything is built."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasternet_mm import FasterNet

ARCH = dict(embed_dims=8, depths=(1, 1, 1, 1))
WRONG = {
    'in_channels': [0, -3, 3.0, '3', None, True, [3]],
    'n_div': [0, -1, 2.5, '4', None, 9, True],
    'mlp_ratio': [0, -2, 0.1, float('nan'), float('inf'), '2', None, True],
    'drop_path_rate': [1, 2, -0.5, float('nan'), '0.1', None, True],
    'layer_scale_init_value': [-1e-5, float('inf'), '1e-5', None, True],
    'frozen_stages': [-2, 5, 1.0, '1', None, True, [1]],
    'out_indices': [(), (4,), (-5,), 4, 1.0, None, '0', (0, '1'), (0.0,), (True,), {0: 1}],
    'norm_cfg': [None, 'BN', {}, dict(requires_grad=True), ['BN']],
    'act_cfg': ['ReLU', {}, dict(inplace=True), 3],
    'out_norm': [None, 1, 'True', (0, 1)],
    'norm_eval': [None, 0, 'False'],
    'with_cp': [None, 1, 'yes'],
}


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_named_with_what_was_expected(name, value):
    with pytest.raises(ValueError) as error:
        FasterNet(ARCH, **{name: value})
    assert str(error.value).startswith(f'{name} must be ') and f'but is {value!r}' in str(error.value)


@pytest.mark.parametrize('arch', [None, 3, ['s'], b's', dict(), dict(ARCH, act_cfg=None), dict(ARCH, act_cfg='ReLU')])
def test_a_wrong_arch(arch):
    with pytest.raises(ValueError, match='arch of FasterNet must be'):
        FasterNet(arch)


def test_ints_and_floats_of_numpy_are_numbers_too():
    arch = dict(embed_dims=np.int64(8), depths=tuple(np.ones(4, int)))
    model = FasterNet(arch, drop_path_rate=np.float32(0.1), out_indices=[np.int64(3)], frozen_stages=np.int32(1))
    assert model.out_indices == (3,)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-6, 6),
    st.floats(-6, 6) | st.sampled_from([float('nan'), float('inf'), -float('inf')]),
    st.text(max_size=3) | st.binary(max_size=2),
    st.lists(st.integers(-6, 6), max_size=3) | st.tuples(st.integers(-6, 6)),
    st.dictionaries(st.text(max_size=3), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(WRONG) + ['arch']), value=ANYTHING)
def test_whatever_is_given_it_builds_and_runs_or_is_a_value_error_that_names_the_argument(name, value):
    with torch.device('meta'):
        try:
            model = FasterNet(**{'arch': ARCH, name: value})
        except ValueError as error:
            assert name in str(error) and repr(value) in str(error)
            return
        model(torch.empty(2, model.patch_embed.proj.in_channels, 64, 64))
