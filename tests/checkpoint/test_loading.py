"""Which files load, which are refused, and what the user reads."""

import io
import os
import pickle
import tempfile
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import CheckpointLoader, load_checkpoint, save_checkpoint
from mmengine.utils import digit_version

from fasternet_mm import FasterNet
from fasternet_mm.errors import CheckpointError
from tests.helpers.golden import official_state_dict

MARK = Path(tempfile.mkdtemp()) / 'it_ran'

refuses = pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.6'), reason='before torch 2.6, torch.load runs pickles'
)


class Malicious:
    def __reduce__(self):
        return os.system, (f'touch {MARK}',)


def written_by_mmengine(path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    history.statistics('mean')
    info = {'lr': np.float64(0.1), 'best': np.float32(0.5), 'iter': np.int64(3), 'seen': np.arange(3)}
    content = dict(message_hub=dict(log_scalars={'train/loss': history}, runtime_info=info), state_dict={})
    save_checkpoint(content, str(path))
    return history


@refuses
def test_what_mmengine_logs_passes_weights_only(tmp_path):
    history = written_by_mmengine(tmp_path / 'epoch_1.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'epoch_1.pth'))['message_hub']
    again = loaded['log_scalars']['train/loss']
    assert again.mean() == history.mean() and again.max() == 2.0
    assert loaded['runtime_info']['lr'] == 0.1 and loaded['runtime_info']['seen'].tolist() == [0, 1, 2]
    torch.load(tmp_path / 'epoch_1.pth', weights_only=True)


@refuses
@pytest.mark.parametrize('content', [Malicious(), {'state_dict': {}, 'meta': Malicious()}], ids=['bare', 'inside'])
def test_a_pickle_that_would_run_code_is_refused_by_name(tmp_path, content):
    path = tmp_path / 'evil.pth'
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r'evil\.pth was refused: loading it would call (posix|os)\.system'):
        CheckpointLoader.load_checkpoint(str(path))
    assert not MARK.exists()


class ReadsAnything:
    def __reduce__(self):
        return getattr, ('', 'join')


class ReadsMoreOfHistoryBuffer:
    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


@refuses
@pytest.mark.parametrize('content', [ReadsAnything(), ReadsMoreOfHistoryBuffer(), partial(print, 1)])
def test_getattr_is_open_for_the_four_statistics_alone(tmp_path, content):
    torch.save(content, tmp_path / 'evil.pth')
    with pytest.raises(
        CheckpointError, match='was refused: loading it would call (builtins.getattr|functools.partial)'
    ):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'evil.pth'))


@refuses
@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_is_refused_by_name(tmp_path, protocol):
    (tmp_path / 'evil.pkl').write_bytes(pickle.dumps(Malicious(), protocol))
    with pytest.raises(CheckpointError, match=r'evil\.pkl was refused: loading it would call posix\.system'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'evil.pkl'))


@refuses
@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('protocol', [3, 4, 5])
def test_a_newer_pickle_protocol_hides_nothing(tmp_path, protocol, zipped):
    path, options = tmp_path / 'new.pth', dict(pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    torch.save({'state_dict': OrderedDict(x=torch.ones(2)), 'meta': Malicious()}, path, **options)
    with pytest.raises(CheckpointError, match=r'new\.pth was refused: loading it would call posix\.system'):
        CheckpointLoader.load_checkpoint(str(path))
    torch.save({'state_dict': OrderedDict(x=torch.ones(2))}, path, **options)
    if protocol > 3:
        with pytest.raises(CheckpointError, match='it holds plain data, but in a pickle format'):
            CheckpointLoader.load_checkpoint(str(path))


@refuses
@pytest.mark.parametrize('scheduler', ['OneCycleLR', 'CosineAnnealingLR', 'MultiStepLR', 'ReduceOnPlateauLR'])
def test_schedulers_states_pass_weights_only(tmp_path, scheduler):
    options = dict(
        OneCycleLR=dict(eta_max=1, total_steps=5), CosineAnnealingLR=dict(T_max=5), MultiStepLR=dict(milestones=[2])
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    built = PARAM_SCHEDULERS.build(dict(type=scheduler, optimizer=optimizer, **options.get(scheduler, {})))
    torch.save(built.state_dict(), tmp_path / 'state.pth')
    built.load_state_dict(CheckpointLoader.load_checkpoint(str(tmp_path / 'state.pth')))


DAMAGED = [b'', b'<html>not found</html>', b'Repository not found', b'(hello', b'PK\x03\x04', bytes(range(256))]


@pytest.mark.parametrize('content', DAMAGED)
def test_a_file_of_something_else_is_called_damaged(tmp_path, content):
    (tmp_path / 'page.pth').write_bytes(content)
    with pytest.raises(CheckpointError, match=r'page\.pth is damaged or not a PyTorch checkpoint'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'page.pth'))


@settings(max_examples=60, deadline=None)
@given(keep=st.floats(0, 0.999), zipped=st.booleans())
def test_a_truncated_file_is_called_damaged(keep, zipped):
    buffer = io.BytesIO()
    torch.save({'state_dict': {'x': torch.randn(50)}}, buffer, _use_new_zipfile_serialization=zipped)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'half.pth')
        path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * keep)])
        with pytest.raises(CheckpointError, match=r'half\.pth is damaged or not a PyTorch checkpoint'):
            CheckpointLoader.load_checkpoint(str(path))


def test_a_missing_file_is_named():
    with pytest.raises(CheckpointError, match='checkpoint not found: nowhere.pth'):
        CheckpointLoader.load_checkpoint('nowhere.pth')


@pytest.mark.parametrize('options', [dict(layer_scale_init_value=1e-5), dict(norm_cfg=dict(type='GN', num_groups=4))])
def test_official_weights_serve_networks_with_something_added(tmp_path, options):
    torch.save(official_state_dict('t0', 'classification', seed=0), tmp_path / 'official.pth')
    load_checkpoint(FasterNet('t0', **options), str(tmp_path / 'official.pth'))


@pytest.mark.parametrize('out_norm', [False, True])
def test_official_classification_weights_initialise_the_backbone(tmp_path, out_norm):
    weights = official_state_dict('t0', 'classification', seed=0)
    torch.save(weights, tmp_path / 'official.pth')
    model = FasterNet('t0', out_norm=out_norm)
    model.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'official.pth'))
    model.init_weights()
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights.items() if key in state)
    assert {key.split('.')[0] for key in set(state) - set(weights)} <= {'norm0', 'norm2', 'norm4', 'norm6'}


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
@pytest.mark.parametrize(
    ('arch', 'cause'),
    [('t1', r'another variant: t1 \(64 channels, .*\), where the model is t0'), ('resnet', 'another model')],
)
def test_a_backbone_never_stays_random_in_silence(tmp_path, arch, cause, prefix):
    if arch == 'resnet':
        from torchvision.models import resnet18

        weights = resnet18().state_dict()
    else:
        weights = official_state_dict(arch, 'classification', seed=0)
    torch.save({prefix + key: value for key, value in weights.items()}, tmp_path / 'other.pth')
    module = FasterNet('t0')
    if prefix:
        module = torch.nn.ModuleDict(dict(backbone=module))
    message = rf'does not fit FasterNet: .*most likely it is a file of {cause}'
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(module, str(tmp_path / 'other.pth'))
    assert 'patch_embed.proj.weight' in str(error.value) and len(str(error.value)) < 4000


def test_torchs_own_non_strict_loading_stays_as_it_is(tiny):
    model = FasterNet(**tiny)
    result = model.load_state_dict({}, strict=False)
    assert 'patch_embed.proj.weight' in result.missing_keys


def test_fewer_outputs_load_the_whole_networks_weights(tmp_path, tiny):
    full = FasterNet(**tiny, out_norm=True)
    torch.save(full.state_dict(), tmp_path / 'full.pth')
    part = FasterNet(**tiny, out_indices=(1, 2), out_norm=True)
    load_checkpoint(part, str(tmp_path / 'full.pth'))
    want = full.state_dict()
    assert all(torch.equal(value, want[key]) for key, value in part.state_dict().items())
