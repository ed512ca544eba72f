"""Check first, then load once: strict loading, and the checks of testing and resuming."""

import copy

import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

from fasternet_mm import FasterNet, checkpoint
from fasternet_mm.checkpoint import convert_state_dict, load_strict, rename_to_mm, require_filling
from fasternet_mm.engine.runner import FittingCheckpointHook
from fasternet_mm.errors import CheckpointError

pytestmark = pytest.mark.usefixtures('mmpretrain_scope')


@pytest.fixture
def model(tiny_classifier):
    return MODELS.build(tiny_classifier)


@pytest.fixture
def trained(tiny_classifier):
    """Weights of the same model that are not those of `model`."""
    state = MODELS.build(tiny_classifier).state_dict()
    return {name: tensor + 1 for name, tensor in state.items()}


def writes(model) -> dict[str, int]:
    """How often torch wrote into each tensor of a model."""
    return {name: tensor._version for name, tensor in model.state_dict(keep_vars=True).items()}


def written(model, before: dict[str, int]) -> set[int]:
    return {count - before[name] for name, count in writes(model).items()}


def is_filled_with(model, weights: dict) -> bool:
    return all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize('layout', ['mm', 'official', 'timm'])
def test_strict_loading_writes_each_tensor_once(model, trained, layout):
    before = writes(model)
    load_strict(model, dict(state_dict=convert_state_dict(trained, layout)))
    assert written(model, before) == {1} and is_filled_with(model, trained)


WRONG = {
    'missing': lambda state: state.pop('head.fc.bias'),
    'unexpected': lambda state: state.update(extra=torch.zeros(1)),
    'of another shape': lambda state: state.update({'head.conv.weight': torch.zeros(2, 64, 1, 1)}),
}


@pytest.mark.parametrize('wrong', WRONG)
def test_what_does_not_fit_leaves_the_model_as_it_was(model, trained, wrong):
    WRONG[wrong](trained)
    before = writes(model)
    for refuse in (load_strict, require_filling):
        with pytest.raises(CheckpointError, match=f'1 {wrong}: .*layout recognised: mm classifier'):
            refuse(model, trained)
    assert written(model, before) == {0}


def test_old_files_without_the_counter_of_batches_fit(model, trained):
    load_strict(model, {name: tensor for name, tensor in trained.items() if 'num_batches' not in name})
    assert torch.equal(model.backbone.patch_embed.norm.bias, trained['backbone.patch_embed.norm.bias'])


class Renaming(torch.nn.Module):
    """Renames what it loads before its children see it, as a semi-supervised detector does."""

    def __init__(self, backbone) -> None:
        super().__init__()
        self.student = torch.nn.ModuleDict(dict(backbone=backbone))
        self.teacher = copy.deepcopy(self.student)

    def _load_from_state_dict(self, state_dict, *args) -> None:
        for name in [name for name in state_dict if name.startswith('backbone.')]:
            tensor = state_dict.pop(name)
            state_dict.update({f'student.{name}': tensor, f'teacher.{name}': tensor})
        super()._load_from_state_dict(state_dict, *args)


def test_models_that_rename_what_they_load(tiny):
    model, source = Renaming(FasterNet(**tiny)), FasterNet(**tiny)
    weights = {f'backbone.{name}': tensor + 1 for name, tensor in source.state_dict().items()}
    before = writes(model)
    load_strict(model, weights)
    assert written(model, before) == {1}
    assert all(torch.equal(model.state_dict()[f'teacher.{name}'], weights[name]) for name in weights)
    load_strict(model, model.state_dict())
    del weights['backbone.stages.1.norm.bias']
    with pytest.raises(CheckpointError, match='does not fit FasterNet: .*1 missing: stages.1.norm.bias'):
        load_strict(model, weights)


def test_the_name_of_0_1_still_serves(model, trained):
    checkpoint.require_loadable(model, trained)
    assert is_filled_with(model, trained)


@pytest.mark.parametrize('layout', ['official', 'timm', 'mm'])
def test_renaming_in_place(trained, layout):
    names, state = list(trained), convert_state_dict(trained, layout)
    rename_to_mm(state, 'below.')
    assert list(state) == list(convert_state_dict(trained, layout))
    rename_to_mm(state)
    assert list(state) == names and all(state[name] is trained[name] for name in names)


def runner_of(model, folder, hooks=()) -> Runner:
    runner = Runner(model, work_dir=str(folder), experiment_name=str(folder), custom_hooks=list(hooks))
    runner.register_hook(FittingCheckpointHook(), priority='VERY_HIGH')
    return runner


@pytest.mark.parametrize('layout', ['mm', 'timm'])
def test_testing_and_resuming_write_each_tensor_once(model, trained, tmp_path, layout):
    torch.save(dict(state_dict=convert_state_dict(trained, layout)), tmp_path / 'epoch_1.pth')
    runner, before = runner_of(model, tmp_path), writes(model)
    runner.load_checkpoint(str(tmp_path / 'epoch_1.pth'))  # which Runner.resume calls, too
    assert written(model, before) == {1} and is_filled_with(model, trained)


def test_a_checkpoint_that_leaves_something_out_is_refused_before_it_is_loaded(model, trained, tmp_path):
    head = {name for name in trained if name.startswith('head.')}
    weights = {name: tensor for name, tensor in trained.items() if name not in head}
    torch.save(dict(state_dict=weights), tmp_path / 'epoch_1.pth')
    runner, before = runner_of(model, tmp_path), writes(model)
    with pytest.raises(CheckpointError, match='most likely it is a file without head; 3 missing'):
        runner.load_checkpoint(str(tmp_path / 'epoch_1.pth'))
    assert written(model, before) == {0}


def test_averaged_weights_load_beside(model, trained, tmp_path):
    torch.save(dict(state_dict=trained), tmp_path / 'epoch_1.pth')
    runner = runner_of(model, tmp_path, [dict(type='mmengine.EMAHook')])
    runner.call_hook('before_run')
    before = writes(model)
    runner.load_checkpoint(str(tmp_path / 'epoch_1.pth'))
    (average,) = [hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model')]
    assert written(model, before) == {1} and is_filled_with(model, trained) and is_filled_with(average.module, trained)
