"""Whole models that 0.1.0 pickled, whose classes have other names and places now."""

import pytest
import torch

from tests.helpers import relative_error
from tests.helpers.golden import DATA


@pytest.mark.parametrize('form', ['trained', 'deployed'])
def test_a_model_pickled_by_0_1_0_loads_and_computes_the_same(form):
    content = torch.load(DATA / 'pickled_by_0.1.0.pth', weights_only=False)  # made by 0.1.0 itself
    model = content[form]
    with torch.inference_mode():
        assert relative_error(list(model(content['images'])), content['outputs']) < 1e-5
    assert model.deployed == (form == 'deployed')
    model.eval().switch_to_deploy()
    with torch.inference_mode():
        assert relative_error(list(model(content['images'])), content['outputs']) < 1e-5
