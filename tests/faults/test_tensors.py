"""Whatever a checkpoint holds: its tensors are loaded as they were written, all of them, or one error names them."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmpretrain.registry import MODELS

from fasternet_mm.checkpoint import load_strict
from fasternet_mm.errors import CheckpointError

from .line import saved


@pytest.fixture
def model(tiny_classifier, mmpretrain_scope):
    return MODELS.build(tiny_classifier)


WEIGHT = 'backbone.stages.0.blocks.0.mlp.0.weight'
NO_TENSORS = {
    'ndarray': lambda value: value.numpy(),
    'list': lambda value: value.tolist(),
    'NoneType': lambda value: None,
    'str': lambda value: 'weight',
    'float': lambda value: 0.5,
    'dict': lambda value: dict(tensor=value),
}
USELESS = {
    'int8': lambda value: value.to(torch.int8),
    'complex64': lambda value: value.to(torch.complex64),
    'sparse_coo': lambda value: value.to_sparse(),
    'without content': lambda value: value.to('meta'),
    'NaN or infinite': lambda value: value / 0,
}


@pytest.mark.parametrize('load', ['load_strict', 'load_checkpoint'])
@pytest.mark.parametrize('kind', [*NO_TENSORS, *USELESS])
def test_what_torch_would_not_load_as_it_is_does_not_count(model, tmp_path, kind, load):
    before = copy.deepcopy(model.state_dict())
    content = {name: value + 1 for name, value in before.items()}
    content[WEIGHT] = (NO_TENSORS | USELESS)[kind](content[WEIGHT])
    with pytest.raises(CheckpointError) as error:
        if load == 'load_strict':
            load_strict(model, content)
        else:
            load_checkpoint(model, str(saved(tmp_path, content)))
    assert f'{WEIGHT} ({kind})' in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_in_a_model_around_it_too(model, tmp_path):
    outer = torch.nn.ModuleDict(dict(student=model, neck=torch.nn.Linear(2, 2)))
    content = {name: value + 1 for name, value in outer.state_dict().items()}
    content['neck.bias'] = [0.0, 0.0]
    with pytest.raises(CheckpointError, match=r'1 of 61 entries in the file are no tensors: neck\.bias \(list\)'):
        load_checkpoint(outer, str(saved(tmp_path, content)))


def test_half_precision_and_other_entries_are_welcome(model, tmp_path):
    content = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    path = saved(tmp_path, dict(content, epoch=3, args=None))
    load_checkpoint(model, str(path))
    assert torch.equal(model.state_dict()[WEIGHT], content[WEIGHT].float())


values = st.sampled_from([None, 'text', 3, [1.0], {}, np.zeros(3), torch.zeros(()), torch.zeros(3), torch.zeros(2, 0)])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_state_dict_is_loaded_as_a_whole_or_not_at_all(data):
    model = MODELS.get('FasterNet')(arch=dict(embed_dims=8, depths=(1, 1, 1, 1), act_cfg=dict(type='ReLU')))
    before = copy.deepcopy(model.state_dict())
    content = {name: value + 1 for name, value in before.items()}
    for name in data.draw(st.lists(st.sampled_from(list(content)), max_size=3)):
        content[name] = data.draw(values)
    content |= data.draw(st.dictionaries(st.text(max_size=3), values, max_size=2))
    wanted = copy.deepcopy(content)
    try:
        load_strict(model, content)
    except CheckpointError as error:
        assert len(str(error)) < 4000
        wanted = before
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


OTHER = {
    'a list': ([torch.ones(1)], 'a dict of tensors by name, but a list'),
    'a tensor': (torch.ones(1), 'a dict of tensors by name, but a Tensor'),
    'a list inside': (dict(state_dict=[torch.ones(1)]), 'a dict of tensors by name, but a list'),
    'numbers for names': ({1: torch.ones(1)}, 'holds no state_dict, a dict of tensors by name: 1 names none'),
    'a name that moves the cursor': (dict(state_dict={'a\x1b[2J': torch.ones(1)}), r"'a\x1b[2J' names none"),
}


@pytest.mark.parametrize('case', OTHER)
def test_a_file_of_something_else_is_named(tmp_path, case):
    content, told = OTHER[case]
    with pytest.raises(CheckpointError, match='given.pth') as error:
        CheckpointLoader.load_checkpoint(str(saved(tmp_path, content)))
    assert told in '; '.join([str(error.value), *getattr(error.value, '__notes__', ())])
