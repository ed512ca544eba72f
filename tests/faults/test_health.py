"""A training that diverges ends, and leaves what was good."""

import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner, find_latest_checkpoint

from fasternet_mm import FiniteLossHook
from fasternet_mm.checkpoint.rules import is_finite, non_finite
from fasternet_mm.errors import UserError
from tests.helpers import one_line

NAN, INF = math.nan, math.inf


class Line(BaseModel):
    """One weight, statistics of BN, and a mask with -inf in it, which is as it should be."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.norm = torch.nn.BatchNorm1d(1)
        self.register_buffer('mask', torch.tensor([0.0, -INF]))

    def forward(self, *inputs, mode='loss'):
        loss = (self.weight - self.norm(torch.stack(inputs)[:, None]).mean()).square().sum()
        return dict(loss_fit=loss, loss_none=loss.detach() * 0) if mode == 'loss' else [loss]


class Spoil(Hook):
    """Writes `value` into the tensor `name` after the iteration `at`, which counts from 1."""

    def __init__(self, name: str, at: int, value: float = NAN) -> None:
        self.name, self.at, self.value = name, at, value

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.at:
            with torch.no_grad():
                runner.model.state_dict()[self.name].fill_(self.value)


def run(work_dir, *hooks, **checkpoint):
    """Five epochs of two iterations."""
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
    runner = Runner(
        Line(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[torch.tensor(float(i)) for i in range(4)], batch_size=2, sampler=dict(type='DefaultSampler')
        ),
        train_cfg=dict(by_epoch=True, max_epochs=5),
        optim_wrapper=optim_wrapper,
        default_hooks=dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=1, **checkpoint)),
        custom_hooks=list(hooks),
        experiment_name=str(work_dir),
        cfg=Config(dict(optim_wrapper=optim_wrapper)),
    )
    runner.train()
    return runner


def checkpoints(folder) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth*'))


@pytest.mark.parametrize('value', [NAN, INF, -INF])
@pytest.mark.parametrize('name', ['weight', 'norm.running_mean', 'norm.running_var'])
def test_what_is_not_finite_never_retires_what_is(tmp_path, name, value):
    with pytest.raises(UserError, match=rf'diverged by iteration 6: .*not finite \(.*{name}.*was not saved'):
        run(tmp_path, Spoil(name, at=5, value=value))
    assert checkpoints(tmp_path) == ['epoch_2.pth']
    assert find_latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_2.pth')


def test_the_best_one_stays_too(tmp_path):
    class Validate(Hook):
        def after_train_epoch(self, runner):
            hook = next(hook for hook in runner.hooks if hasattr(hook, 'save_best'))
            hook.after_val_epoch(runner, dict(ap=runner.epoch))

    with pytest.raises(UserError, match='diverged'):
        run(tmp_path, Spoil('weight', at=5), Validate(), save_best='ap', rule='greater')
    assert checkpoints(tmp_path) == ['best_ap_epoch_1.pth', 'epoch_2.pth']


def test_an_infinite_mask_is_no_divergence(tmp_path):
    run(tmp_path, FiniteLossHook())
    assert checkpoints(tmp_path) == ['epoch_5.pth']


@pytest.mark.parametrize('dtype', [torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_large_numbers_are_finite(dtype):
    large = torch.full((100,), torch.finfo(dtype).max, dtype=dtype)  # their sum is not
    assert is_finite(large)
    for value in (NAN, INF, -INF):
        large[50] = value
        assert not is_finite(large)


def test_ddps_names_are_the_models():
    state = {f'module.{name}': tensor * NAN for name, tensor in Line().state_dict().items()}
    assert non_finite(Line(), {**state, 'steps': torch.tensor(3)}) == [
        'module.weight',
        *(f'module.norm.{name}' for name in ('weight', 'bias', 'running_mean', 'running_var')),
    ]


def after(losses: list[float], patience: int = 3) -> None:
    """What the hook says to these losses."""
    hook, hub = FiniteLossHook(patience), MessageHub('losses')
    optimizer = SimpleNamespace(get_lr=lambda: dict(lr=[0.02, 0.01]))
    runner = SimpleNamespace(message_hub=hub, optim_wrapper=optimizer, epoch=1)
    hook.before_train(runner)
    for runner.iter, loss in enumerate(losses):
        outputs = dict(loss=loss, loss_cls=loss, loss_bbox=0.5, acc=NAN)  # an accuracy without any sample is NaN
        for name, value in outputs.items():
            hub.update_scalar(f'train/{name}', value)
        hook.after_train_iter(runner, 0, outputs=outputs)


@pytest.mark.parametrize('loss', [NAN, INF, -INF])
def test_a_loss_that_stays_beyond_numbers_ends_the_training(loss):
    said = rf'3 iterations in a row, up to iteration 5 \(epoch 2\).*loss_cls {loss}; learning rate 0.02\)\. Try a lower'
    with pytest.raises(UserError, match=said) as error:
        after([1.0, 0.5, loss, loss, loss])
    assert 'loss_bbox' not in str(error.value) and 'acc' not in str(error.value)


def test_iterations_that_mixed_precision_skips_do_not():
    after([NAN, INF, 1.0] * 5)


def test_models_without_losses_are_none_of_its_business():
    hook = FiniteLossHook(patience=1)
    for outputs in (None, {}, dict(acc=NAN)):
        hook.after_train_iter(SimpleNamespace(message_hub=MessageHub('none')), 0, outputs=outputs)


@pytest.mark.parametrize('patience', [0, -1])
def test_patience_is_positive(patience):
    with pytest.raises(ValueError, match=f'patience must be at least 1 iteration, but is {patience}'):
        FiniteLossHook(patience)


def test_a_diverged_detector_is_one_line(tiny_config, tmp_path, run_tool):
    options = ['optim_wrapper.optimizer.lr=1e20', 'param_scheduler=None']
    line = one_line(run_tool('train.py', tiny_config(), '--cfg-options', *options, check=False))
    assert 'the training has diverged: 5 iterations in a row' in line and 'learning rate 1e+20' in line
    assert not checkpoints(tmp_path / 'work')
