"""A training goes on from all of its state, as it was configured, or one error names the file."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict

from fasternet_mm.engine.checks.resume import require_resumable
from fasternet_mm.errors import CheckpointError

from .line import Line, saved, train


def test_a_checkpoint_is_data_and_no_code(tmp_path, trained):
    mark, content = tmp_path / 'it_ran', copy.deepcopy(trained)
    content['meta']['config'] = f'open({str(mark)!r}, "w")'  # where mmcv kept the config, which mmengine executes
    runner = train(tmp_path, 2, saved(tmp_path, content))
    assert runner.epoch == 2 and not mark.exists()


def without(*keys):
    return lambda content: {key: value for key, value in content.items() if key not in keys}


def with_(part, **values):
    return lambda content: {**content, part: {**content[part], **values}}


INCOMPLETE = {
    'weights alone': (lambda content: content['state_dict'], 'it holds weights, but no state of a training'),
    'no meta': (without('meta'), 'it holds weights, but no state of a training'),
    'no optimizer': (without('optimizer'), "saved without the optimizer's state"),
    'no schedules': (without('param_schedulers'), 'holds 0 schedules of the learning rate, and the config has 1'),
    'an epoch that is none': (with_('meta', epoch='1'), "its meta.epoch is '1'"),
    'a negative iteration': (with_('meta', iter=-1), 'its meta.iter is -1'),
    'a seed that is none': (with_('meta', seed='x'), "its meta.seed is 'x'"),
    'logs that are none': (with_('message_hub', log_scalars=[]), 'its message_hub.log_scalars'),
    'an optimizer without its moments': (with_('optimizer', state={}), 'its optimizer has no state after 2 iterations'),
    'an optimizer that is none': (with_('optimizer', param_groups=[1]), "its optimizer's state is none that AdamW"),
}  # fmt: skip


@pytest.mark.parametrize('case', INCOMPLETE)
def test_a_training_goes_on_whole_or_not_at_all(tmp_path, trained, case):
    change, told = INCOMPLETE[case]
    path = saved(tmp_path, change(copy.deepcopy(trained)))
    with pytest.raises(CheckpointError, match='no training can go on from it') as error:
        train(tmp_path, 2, path)
    assert told in str(error.value) and str(path) in str(error.value) and 'leave --resume out' in str(error.value)


SGD = dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
GROUPS = dict(optim_wrapper=dict(paramwise_cfg=dict(bias_lr_mult=2.0)))
CHANGED = {
    'another optimizer': (SGD, 'has betas, .*, where SGD, .* has momentum'),
    'other groups': (GROUPS, 'has 1 groups of parameters, that of the config 2'),
    'other schedules': (dict(schedules=2), 'holds 1 schedules of the learning rate, and the config has 2'),
    'another model': (dict(model=Line(3)), r'layer\.weight \(1, 2\), not \(1, 3\)'),
}  # fmt: skip


@pytest.mark.parametrize('case', CHANGED)
def test_a_training_goes_on_as_it_was_configured(tmp_path, trained, case):
    changed, told = CHANGED[case]
    with pytest.raises(CheckpointError, match=told):
        train(tmp_path, 2, saved(tmp_path, trained), **changed)


def test_an_optimizer_that_keeps_nothing_goes_on_with_nothing(tmp_path):
    for folder, momentum in ((tmp_path / 'plain', 0), (tmp_path / 'momentum', 0.9)):
        sgd = dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=momentum)))
        train(folder, 1, **sgd)
        content = torch.load(folder / 'epoch_1.pth')
        if not momentum:
            assert not any(state for state in content['optimizer']['state'].values())
        content['optimizer']['state'].clear()
        if momentum:
            with pytest.raises(CheckpointError, match='has no state after 2 iterations'):
                train(folder, 2, saved(folder, content), **sgd)
        else:
            assert train(folder, 2, saved(folder, content), **sgd).epoch == 2


@pytest.mark.parametrize('version', ['newer', 'older'])
def test_an_option_that_another_torch_has_does_not_matter(tmp_path, trained, version):
    content = copy.deepcopy(trained)
    (group,) = content['optimizer']['param_groups']
    if version == 'newer':
        group['new_option'] = None
    else:
        del group['foreach']
    assert train(tmp_path, 2, saved(tmp_path, content)).epoch == 2


def test_several_optimizers_go_on_each_with_its_own(trained):
    def wrapped(kind) -> OptimWrapper:
        return OptimWrapper(kind(torch.nn.Linear(2, 1).parameters(), lr=0.1))

    wrappers = OptimWrapperDict(a=wrapped(torch.optim.SGD), b=wrapped(torch.optim.AdamW))
    for _, wrapper in wrappers.items():
        for parameter in wrapper.param_groups[0]['params']:
            parameter.grad = torch.ones_like(parameter)
        wrapper.step()
    runner = SimpleNamespace(optim_wrapper=wrappers, param_schedulers=None)
    state = wrappers.state_dict()
    require_resumable(runner, dict(trained, optimizer=state))
    for wrong in (dict(a=state['b'], b=state['a']), dict(a=state['a']), [state]):
        with pytest.raises(CheckpointError, match='its optimizer'):
            require_resumable(runner, dict(trained, optimizer=wrong))


def test_nothing_goes_on_from_weights_that_are_not_finite(tmp_path, trained):
    content = copy.deepcopy(trained)
    content['state_dict']['layer.bias'][:] = math.nan
    with pytest.raises(CheckpointError, match=r'given\.pth: 1 of the 2 tensors .* layer\.bias \(NaN or infinite\)'):
        train(tmp_path, 2, saved(tmp_path, content))
