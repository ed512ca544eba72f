"""Arguments of what people build with their own hands: each wrong one is named, with its value and what is expected."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from fasternet_mm.engine.preflight import check_config
from fasternet_mm.errors import UserError
from fasternet_mm.models import FasterNetClsHead, PartialConv2d

PCONV = {
    'channels': [0, -4, 4.0, '4', None, True, [4]],
    'n_div': [0, -1, 9, 2.0, '4', None, True],
    'kernel_size': [0, -3, 2, 3.0, '3', None, (3, 3)],
}
HEAD = {
    'num_classes': [0, -1, 2.0, '3', None, True],
    'in_channels': [0, -1, 2.0, '3', None, [8]],
    'hidden_channels': [0, -1, 2.0, '3', None],
    'act_cfg': [None, 'ReLU', {}],
    'loss': [None, 'CrossEntropyLoss', {}],
    'ignore_mismatched_sizes': [None, 1, 'True'],
    'cal_acc': [None, 1, 'True'],
    'topk': [0, (1, 0), 1.0, '1', (None,)],
}


def cases(table):
    return [(name, value) for name, values in table.items() for value in values]


@pytest.mark.parametrize(('name', 'value'), cases(PCONV))
def test_a_wrong_argument_of_pconv_is_named(name, value):
    with pytest.raises(ValueError) as error:
        PartialConv2d(**{'channels': 8, name: value})
    assert str(error.value).startswith(f'{name} must be ') and f'but is {value!r}' in str(error.value)


@pytest.mark.parametrize(('name', 'value'), cases(HEAD))
def test_a_wrong_argument_of_the_head_is_named(name, value):
    with pytest.raises(ValueError) as error:
        FasterNetClsHead(**{'num_classes': 3, 'in_channels': 8, name: value})
    wrong = value[-1] if isinstance(value, tuple) else value
    assert str(error.value).startswith(f'{name} must be ') and f'but is {wrong!r}' in str(error.value)


def test_an_accuracy_of_more_than_there_are_classes(mmpretrain_scope):
    with pytest.raises(ValueError, match='topk must be from 1 to 3, but is 5'):
        FasterNetClsHead(3, 8, cal_acc=True, topk=(1, 5))
    FasterNetClsHead(3, 8, topk=(1, 5))  # which is not logged


@settings(max_examples=60, deadline=None)
@given(channels=st.integers(-2, 12), n_div=st.integers(-2, 12), kernel_size=st.integers(-1, 6))
def test_pconv_keeps_the_shape_or_names_an_argument(channels, n_div, kernel_size):
    try:
        layer = PartialConv2d(channels, n_div, kernel_size)
    except ValueError as error:
        assert str(error).startswith(('channels must be ', 'n_div must be ', 'kernel_size must be '))
    else:
        x = torch.ones(1, channels, 5, 5)
        assert layer(x).shape == x.shape


@pytest.mark.parametrize(
    ('setting', 'value', 'told'),
    [
        ('arch', 'xl', "unknown arch 'xl' of FasterNet; choose from t0"),
        ('out_indices', (0, 7), 'out_indices must be stages from 0 to 3, but is (0, 7)'),
        ('n_div', 0, 'n_div must be '),
        ('drop_path_rate', 2, 'drop_path_rate must be '),
        ('norm_cfg', dict(type='BNN'), "type in norm_cfg must be a layer that mmcv knows, but is 'BNN'"),
        ('width', 3, "unexpected keyword argument 'width'"),
    ],
)
def test_the_configs_key_stands_before_it(tiny, setting, value, told):
    backbone = dict(type='FasterNet', **tiny) | {setting: value}
    for model, key in ((dict(backbone=backbone), 'model.backbone'), (dict(a=[dict(b=backbone)]), 'model.a.0.b')):
        with pytest.raises(UserError) as error:
            check_config(Config(dict(model=model)), 'test')
        assert str(error.value).startswith(f'{key}: ') and told in str(error.value)
