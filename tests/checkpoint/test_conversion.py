"""``tools/convert_checkpoint.py``: the same tensors under other names, and nothing lost."""

import hashlib

import pytest
import timm
import torch
from mmengine.runner import save_checkpoint
from mmpretrain.registry import MODELS

from fasternet_mm.checkpoint import convert_checkpoint, convert_state_dict
from fasternet_mm.errors import CheckpointError, UserError
from tests.helpers.golden import official_state_dict

pytestmark = pytest.mark.usefixtures('mmpretrain_scope')


def equal(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize('through', ['timm', 'official', 'mm'])
@pytest.mark.parametrize('start', ['timm', 'official', 'mm'])
def test_there_and_back_is_bit_equal(tmp_path, start, through):
    weights = convert_state_dict(official_state_dict('t0', 'classification', seed=0), start)
    weights = dict(reversed(weights.items()))  # any order of names
    source, middle, end = (tmp_path / name for name in ('a.pth', 'b.pth', 'c.pth'))
    torch.save(weights, source)
    convert_checkpoint(str(source), str(middle), through)
    convert_checkpoint(str(middle), str(end), start)
    assert equal(torch.load(end), weights)


def trained(path, tiny_classifier) -> dict:
    """A checkpoint as training writes it."""
    model = MODELS.build(tiny_classifier)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    content = dict(
        meta=dict(epoch=3, dataset_meta=dict(classes=('a', 'b', 'c')), cfg='model = ...'),
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(last_step=3)],
        message_hub=dict(log_scalars={}),
    )
    save_checkpoint(content, str(path))
    return content


def test_all_else_in_the_file_is_kept(tmp_path, tiny_classifier):
    before = trained(tmp_path / 'epoch_3.pth', tiny_classifier)
    convert_checkpoint(str(tmp_path / 'epoch_3.pth'), str(tmp_path / 'timm.pth'), 'timm')
    after = torch.load(tmp_path / 'timm.pth')
    assert list(after) == list(before)
    assert after['meta'] == before['meta']
    assert after['optimizer']['param_groups'] == before['optimizer']['param_groups']
    for index, state in before['optimizer']['state'].items():
        assert equal(after['optimizer']['state'][index], state)


def test_averaged_weights_are_renamed_too(tmp_path, tiny_classifier):
    trained(tmp_path / 'epoch_3.pth', tiny_classifier)
    content = torch.load(tmp_path / 'epoch_3.pth')
    content['ema_state_dict'] = {f'module.{name}': t + 1 for name, t in content['state_dict'].items()}
    content['ema_state_dict']['steps'] = torch.tensor(7)
    torch.save(content, tmp_path / 'ema.pth')
    convert_checkpoint(str(tmp_path / 'ema.pth'), str(tmp_path / 'timm.pth'), 'timm')
    convert_checkpoint(str(tmp_path / 'timm.pth'), str(tmp_path / 'back.pth'), 'mm')
    middle, back = torch.load(tmp_path / 'timm.pth')['ema_state_dict'], torch.load(tmp_path / 'back.pth')
    assert 'module.conv_head.weight' in middle and middle['steps'] == 7
    assert equal(back['ema_state_dict'], content['ema_state_dict'])


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_any_memory_layout(tmp_path, name):
    weights = official_state_dict('t0', 'classification', seed=0)
    strided = {n: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in weights.items()}
    torch.save(strided, tmp_path / 'official.pth')
    convert_checkpoint(str(tmp_path / 'official.pth'), str(tmp_path / name), 'timm')
    convert_checkpoint(str(tmp_path / name), str(tmp_path / 'back.pth'), 'official')
    back = torch.load(tmp_path / 'back.pth')
    assert set(back) == set(weights) and all(torch.equal(back[n], weights[n]) for n in weights)


def test_what_is_no_tensor_is_carried_along(tmp_path):
    weights = {**official_state_dict('t0', 'classification', seed=0), 'epoch': 5}
    torch.save(weights, tmp_path / 'official.pth')
    convert_checkpoint(str(tmp_path / 'official.pth'), str(tmp_path / 'timm.pth'), 'timm')
    assert torch.load(tmp_path / 'timm.pth')['epoch'] == 5


def test_the_optimizer_goes_on_request(tmp_path, tiny_classifier):
    before = trained(tmp_path / 'epoch_3.pth', tiny_classifier)
    convert_checkpoint(str(tmp_path / 'epoch_3.pth'), str(tmp_path / 'small.pth'), 'mm', strip_optimizer=True)
    after = torch.load(tmp_path / 'small.pth')
    assert set(after) == {'meta', 'state_dict'} and after['meta'] == before['meta']
    assert (tmp_path / 'small.pth').stat().st_size < (tmp_path / 'epoch_3.pth').stat().st_size / 2


@pytest.mark.parametrize('name', ['timm.pth', 'model.safetensors'])
def test_timm_loads_it(tmp_path, name, run_tool):
    weights = official_state_dict('t0', 'classification', seed=0)
    torch.save(weights, tmp_path / 'official.pth')
    done = run_tool('convert_checkpoint.py', tmp_path / 'official.pth', tmp_path / name, '--to', 'timm')
    digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    *_, line, last = done.stdout.splitlines()
    assert line == f'{tmp_path / "official.pth"}: official classifier -> {tmp_path / name}: timm classifier'
    assert last == f'sha256 {digest}'
    model = timm.create_model('fasternet_t0', checkpoint_path=str(tmp_path / name))
    assert torch.equal(model.conv_head.weight, weights['avgpool_pre_head.1.weight'])
    assert torch.equal(model.stages[3].downsample.norm.running_var, weights['stages.5.norm.running_var'])


def detection() -> dict:
    weights = official_state_dict('t0', 'detection_backbone', seed=0)
    return {**{f'backbone.{name}': t for name, t in weights.items()}, 'neck.fpn.weight': torch.ones(2)}


@pytest.mark.parametrize('to', ['mm', 'official'])
def test_detectors_have_one_layout(tmp_path, to):
    torch.save(dict(state_dict=detection()), tmp_path / 'detector.pth')
    convert_checkpoint(str(tmp_path / 'detector.pth'), str(tmp_path / 'same.pth'), to)
    assert equal(torch.load(tmp_path / 'same.pth')['state_dict'], detection())


WRONG = {
    'timm has no place for a detector': (detection(), r'no place for 21 of 149 tensors \(backbone.norm0'),
    'another network': (dict(conv=torch.ones(1)), 'holds no FasterNet'),
    'no tensors': (dict(epoch=3), 'holds no state_dict'),
}


@pytest.mark.parametrize('case', WRONG)
def test_what_cannot_be_converted_leaves_no_file(tmp_path, case):
    content, message = WRONG[case]
    torch.save(content, tmp_path / 'source.pth')
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(str(tmp_path / 'source.pth'), str(tmp_path / 'out.pth'), 'timm')
    assert [path.name for path in tmp_path.iterdir()] == ['source.pth']


def test_an_existing_file_is_never_replaced(tmp_path, run_tool):
    torch.save(official_state_dict('t0', 'classification', seed=0), tmp_path / 'official.pth')
    (tmp_path / 'precious.pth').write_bytes(b'precious')
    args = [tmp_path / 'official.pth', tmp_path / 'precious.pth', '--to', 'mm']
    done = run_tool('convert_checkpoint.py', *args, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith('exists already; remove it, or choose another name')
    assert (tmp_path / 'precious.pth').read_bytes() == b'precious'


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    torch.save(official_state_dict('t0', 'classification', seed=0), tmp_path / 'official.pth')
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(UserError, match='out.pth cannot be written'):
        convert_checkpoint(str(tmp_path / 'official.pth'), str(tmp_path / 'file' / 'out.pth'), 'mm')
