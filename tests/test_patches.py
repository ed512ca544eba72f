"""What importing changes in a process: each row of patches.py, put on, put on again, taken off, and put on again."""

import dataclasses
import functools
import importlib
import sys
import warnings

import mmengine.fileio.backends
import mmengine.registry
import mmengine.runner
import mmpretrain.registry
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmpretrain.apis import ModelHub
from torchvision.models import mobilenet_v2

import fasternet_mm
from fasternet_mm import FasterNet, patches
from fasternet_mm.compat import EXT_NAME, MultimodalFinder, TorchvisionExtFinder
from fasternet_mm.errors import CheckpointError
from tests.helpers import HAS_MMSEG, needs_mmseg
from tests.helpers.logs import logged

LOADED = mmengine.runner.checkpoint


@pytest.fixture(autouse=True)
def put_back():
    """Whatever a test does, the package is installed afterwards."""
    yield
    patches.uninstall()
    patches.install()


@pytest.fixture
def log():
    """Level and text of each line that is logged meanwhile."""
    with logged(lambda record: (record.levelno, record.getMessage())) as lines:
        yield lines


def entries(mapping: dict, *names: str) -> list:
    return [mapping.get(name) for name in names]


# what each row changes, as it is now
STATE = {
    'import of mmcv._ext': lambda: sum(isinstance(finder, TorchvisionExtFinder) for finder in sys.meta_path),
    'import of mmpretrain.utils.dependency': lambda: sum(isinstance(one, MultimodalFinder) for one in sys.meta_path),
    'torch.serialization: safe globals': lambda: set(map(str, torch.serialization.get_safe_globals())),
    'CheckpointLoader: local files': lambda: CheckpointLoader._get_checkpoint_loader('a.pth'),
    'CheckpointLoader: http(s)': lambda: entries(CheckpointLoader._schemes, 'http://', 'https://'),
    'CheckpointLoader: fasternet://': lambda: CheckpointLoader._get_checkpoint_loader('fasternet://fasternet_t0'),
    'mmengine.runner.load_state_dict, under each of its names': lambda: [
        getattr(function, 'active', None) for function in (LOADED.load_state_dict, mmengine.runner.load_state_dict)
    ],
    'MODELS of mmengine, mmdet and mmpretrain: FasterNet': lambda: [
        __import__(f'{scope}.registry', fromlist=['MODELS']).MODELS.module_dict.get('FasterNet')
        for scope in ('mmengine', 'mmdet', 'mmpretrain')
    ],
    'MODELS of mmengine, mmdet and mmpretrain: ProjectedFasterNet': lambda: [
        __import__(f'{scope}.registry', fromlist=['MODELS']).MODELS.module_dict.get('ProjectedFasterNet')
        for scope in ('mmengine', 'mmdet', 'mmpretrain')
    ],
    'MODELS of mmseg, where it is installed: FasterNet, ProjectedFasterNet': lambda: entries(
        importlib.import_module('mmseg.registry').MODELS.module_dict if HAS_MMSEG else {},
        'FasterNet',
        'ProjectedFasterNet',
    ),
    'MODELS of mmpretrain: FasterNetClsHead': lambda: mmpretrain.registry.MODELS.get('FasterNetClsHead'),
    'MODELS of mmengine: PConvBlock': lambda: mmengine.registry.MODELS.module_dict.get('PConvBlock'),
    'mmengine.registry.Registry.build': lambda: mmengine.registry.Registry.build,
    'HOOKS of mmengine: AtomicCheckpointHook, ExactResumeHook, FiniteLossHook': lambda: entries(
        mmengine.registry.HOOKS.module_dict, 'AtomicCheckpointHook', 'ExactResumeHook', 'FiniteLossHook'
    ),
    "mmengine's file backend 'atomic'": lambda: mmengine.fileio.backends.backends.get('atomic'),
    "mmpretrain's ModelHub: six FasterNets": lambda: sorted(n for n in ModelHub._models_dict if 'fasternet' in n),
    'warnings: pkg_resources is deprecated': lambda: [
        entry[0] for entry in warnings.filters if entry[1] and entry[1].pattern == 'pkg_resources is deprecated'
    ],
}


def test_every_row_says_what_it_does_and_is_in_force():
    assert patches.active() == patches.PATCHES and [patch.target for patch in patches.PATCHES] == list(STATE)
    for patch in patches.PATCHES:
        assert patch.why and patch.versions and patch.undone


@pytest.mark.parametrize('target', [pytest.param(name, marks=[needs_mmseg] * ('mmseg' in name)) for name in STATE])
def test_a_row_is_put_on_once_taken_off_and_put_on_again(target):
    patches.uninstall()  # the warnings filters of a test are a copy of those at import
    patches.install()
    on = STATE[target]()
    patches.install()
    assert STATE[target]() == on
    patches.uninstall()
    off = STATE[target]()
    assert off != on and patches.active() == ()
    patches.install()
    assert STATE[target]() == on and patches.active() == patches.PATCHES
    patches.uninstall()
    assert STATE[target]() == off


def test_what_cannot_be_undone_is_named():
    assert patches.uninstall() == {
        'import of mmcv._ext': 'mmcv.ops was imported with operators from torchvision and keeps them'
    }
    assert patches.uninstall() == {}


def test_operators_that_nothing_imported_yet_are_gone(monkeypatch):
    monkeypatch.delitem(sys.modules, 'mmcv.ops')
    monkeypatch.setitem(sys.modules, EXT_NAME, sys.modules[EXT_NAME])
    assert patches.uninstall() == {}
    with pytest.raises(ModuleNotFoundError, match=EXT_NAME):
        __import__(EXT_NAME)


def test_what_others_allowed_stays_allowed(monkeypatch):
    class Other:
        pass

    patches.uninstall()
    with torch.serialization.safe_globals([HistoryBuffer]):
        patches.install()
        torch.serialization.add_safe_globals([Other])
        patches.uninstall()
        left = torch.serialization.get_safe_globals()
        assert HistoryBuffer in left and Other in left and torch.Tensor not in left
    assert not any('numpy' in str(entry) for entry in torch.serialization.get_safe_globals())


def theirs(filename, map_location=None):
    return {}


def test_a_loader_that_another_plugin_registered_before_us_returns():
    patches.uninstall()
    stock = CheckpointLoader._schemes['']
    CheckpointLoader.register_scheme(prefixes='', loader=theirs, force=True)
    patches.install()
    assert CheckpointLoader._get_checkpoint_loader('a.pth') is not theirs
    patches.uninstall()
    assert CheckpointLoader._get_checkpoint_loader('a.pth') is theirs
    CheckpointLoader.register_scheme(prefixes='', loader=stock, force=True)


def test_a_loader_that_another_plugin_registered_after_us_stays_and_is_named():
    patches.uninstall()
    stock = CheckpointLoader._schemes['']
    patches.install()
    CheckpointLoader.register_scheme(prefixes='', loader=theirs, force=True)
    stays = patches.uninstall()
    assert stays['CheckpointLoader: local files'] == "'' was registered by somebody else since, and stays"
    assert CheckpointLoader._get_checkpoint_loader('a.pth') is theirs
    CheckpointLoader.register_scheme(prefixes='', loader=stock, force=True)


@pytest.fixture
def stock(monkeypatch):
    """mmengine's own function, under both names; whatever plugins do to them ends with the test."""
    patches.uninstall()
    for module in (LOADED, mmengine.runner):
        monkeypatch.setattr(module, 'load_state_dict', LOADED.load_state_dict)
    yield LOADED.load_state_dict
    patches.uninstall()


def plugin(function, calls: list, wraps: bool):
    """What another plugin might put around a function."""

    def wrapper(*args, **kwargs):
        calls.append(args[0])
        return function(*args, **kwargs)

    return functools.wraps(function)(wrapper) if wraps else wrapper


@pytest.mark.parametrize('wraps', [True, False])
@pytest.mark.parametrize('names', [(LOADED,), (mmengine.runner,), (LOADED, mmengine.runner)])
def test_a_function_that_another_plugin_wrapped_before_us_is_checked(stock, tiny, names, wraps):
    calls, wrapper = [], {}
    for module in names:
        wrapper[module] = plugin(stock, calls, wraps)
        module.load_state_dict = wrapper[module]
    patches.install()
    model = FasterNet(**tiny)
    for module in (LOADED, mmengine.runner):
        with pytest.raises(CheckpointError, match='does not fit FasterNet'):
            module.load_state_dict(model, {})
    assert calls == []
    for module in (LOADED, mmengine.runner):
        module.load_state_dict(model, model.state_dict())
    assert calls == [model] * len(names)
    patches.uninstall()
    for module in (LOADED, mmengine.runner):
        assert module.load_state_dict is wrapper.get(module, stock)


@pytest.mark.parametrize('wraps', [True, False])
def test_a_plugin_that_wraps_us_still_works_and_outlasts_us(stock, tiny, wraps, log):
    patches.install()
    calls, model = [], FasterNet(**tiny)
    LOADED.load_state_dict = wrapper = plugin(LOADED.load_state_dict, calls, wraps)
    with pytest.raises(CheckpointError, match='does not fit FasterNet'):
        LOADED.load_state_dict(model, {})
    stays = patches.uninstall()
    assert LOADED.load_state_dict is wrapper and mmengine.runner.load_state_dict is stock
    named = 'mmengine.runner.load_state_dict, under each of its names'
    if wraps:  # otherwise nobody can see what is below it
        assert stays[named] == 'another plugin wrapped it since: ours stays below its wrapper, and only passes on'
    LOADED.load_state_dict(model, {})  # no error: ours is off
    patches.install()
    for module in (LOADED, mmengine.runner):
        with pytest.raises(CheckpointError, match='does not fit FasterNet'):
            module.load_state_dict(model, {})
    assert len(calls) == (3 if wraps else 2)  # without functools.wraps we are around it the second time
    log.clear()
    LOADED.load_state_dict(model, model.state_dict())
    assert [line.split(':')[0] for _, line in log] == ['Checkpoint layout']


def test_a_plugin_that_wraps_the_building_of_models_keeps_its_wrapper(monkeypatch, log):
    ours = mmengine.registry.Registry.build
    monkeypatch.setattr(mmengine.registry.Registry, 'build', lambda *args, **kwargs: ours(*args, **kwargs))
    assert 'another plugin wrapped it' in patches.uninstall()['mmengine.registry.Registry.build']
    patches.install()
    block = dict(type='PConvBlock', in_channels=8, out_channels=8, kernel_size=3, padding=1)
    assert type(mmengine.registry.MODELS.build(block)) is fasternet_mm.PConvBlock
    assert len([line for _, line in log if 'are PConvBlocks' in line]) == 1
    patches.uninstall()


def test_every_module_that_imported_the_function_by_name_is_covered(stock, tiny):
    from mmdet.models.backbones import pvt

    assert pvt.load_state_dict is stock
    patches.install()
    with pytest.raises(CheckpointError, match='does not fit FasterNet'):
        pvt.load_state_dict(FasterNet(**tiny), {})
    patches.uninstall()
    assert pvt.load_state_dict is stock


@pytest.mark.parametrize('position', range(len(patches.PATCHES)))
def test_an_install_that_fails_can_be_called_again(monkeypatch, position):
    patches.uninstall()
    before = {target: state() for target, state in STATE.items()}
    rows = list(patches.PATCHES)
    rows[position] = dataclasses.replace(rows[position], apply=lambda: 1 / 0)
    with monkeypatch.context() as context:
        context.setattr(patches, 'PATCHES', tuple(rows))
        with pytest.raises(ZeroDivisionError):
            patches.install()
        assert patches.active() == patches.PATCHES[:position]
    patches.install()
    assert patches.active() == patches.PATCHES
    patches.uninstall()
    assert {target: state() for target, state in STATE.items()} == before


@pytest.mark.parametrize('content', [None, "assert False, 'MMCV==2.2.0 is used but incompatible'"])
def test_no_mmseg_or_one_that_refuses_to_import_is_harmless(tmp_path, monkeypatch, content):
    patches.uninstall()
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmseg']:
        monkeypatch.delitem(sys.modules, name)
    if content is None:
        monkeypatch.setitem(sys.modules, 'mmseg', None)
    else:
        (tmp_path / 'mmseg.py').write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
    patches.install()
    assert patches.active() == patches.PATCHES
    assert not [target for target in patches.uninstall() if 'mmseg' in target]


def test_a_model_index_that_cannot_be_read_is_read_again(monkeypatch):
    patches.uninstall()
    with monkeypatch.context() as context:
        context.setattr(fasternet_mm.hub._Index, '_models_dict', {})
        context.setattr(ModelHub, '_expand_config_path', lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            patches.install()
        assert not ModelHub.has('fasternet-t0_8xb512_in1k')
    patches.install()
    assert ModelHub.has('fasternet-t0_8xb512_in1k') and ModelHub.has('fasternet-l_8xb256_in1k')


# --- what works with stock works alike: the same calls with the patches off and on


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A model without a FasterNet, and files for it."""
    folder = tmp_path_factory.mktemp('stock')
    torch.manual_seed(0)
    state = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)).state_dict()
    files = dict(
        plain=state,
        wrapped=dict(meta=dict(epoch=1), state_dict={f'module.{name}': tensor for name, tensor in state.items()}),
        inside=dict(state_dict={f'backbone.{name}': tensor for name, tensor in state.items()}),
        short={name: tensor for name, tensor in state.items() if name != '1.bias'},
        long={**state, 'extra': torch.ones(1)},
        shapes={**state, '0.bias': torch.zeros(5)},
        empty=dict(state_dict={}),
        tensor=torch.ones(1),
    )
    for name, content in files.items():
        torch.save(content, folder / f'{name}.pth')
    return folder


def outcome(log, call, *args, **kwargs):
    """What a call on a fresh model leads to: its result, the error, the model's tensors, and the lines of the log."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    log.clear()
    try:
        result, error = call(model, *args, **kwargs), None
    except Exception as raised:
        result, error = None, raised
    return result, error, model.state_dict(), list(log)


def load(model, file, **options):
    return load_checkpoint(model, str(file), logger='current', **options)


def read(model, file, **options):
    return CheckpointLoader.load_checkpoint(str(file), **options)


def by_prefix(model, file, prefix):
    model.init_cfg = dict(type='Pretrained', checkpoint=str(file), prefix=prefix)
    mmengine.model.initialize(model, model.init_cfg)


def same(a, b) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return a.device == b.device and (a.shape == b.shape if a.is_meta else torch.equal(a, b))
    return a == b


CALLS = {
    'not strict': (load, 'plain', {}),
    'strict': (load, 'plain', dict(strict=True)),
    'too short': (load, 'short', {}),
    'too short, strict': (load, 'short', dict(strict=True)),
    'too long': (load, 'long', {}),
    'too long, strict': (load, 'long', dict(strict=True)),
    'wrong shapes': (load, 'shapes', {}),
    'wrong shapes, strict': (load, 'shapes', dict(strict=True)),
    'no tensors': (load, 'empty', {}),
    'no dict': (load, 'tensor', {}),
    'of a DDP': (load, 'wrapped', {}),
    'revise_keys': (load, 'inside', dict(revise_keys=[(r'^backbone\.', '')])),
    'other revise_keys': (load, 'wrapped', dict(revise_keys=[(r'^module\.0', 'a')])),
    'prefix': (by_prefix, 'inside', dict(prefix='backbone.')),
    'another prefix': (by_prefix, 'inside', dict(prefix='neck.')),
    'missing': (load, 'nowhere', {}),
    'read': (read, 'plain', {}),
    'map_location str': (read, 'plain', dict(map_location='meta')),
    'map_location device': (read, 'wrapped', dict(map_location=torch.device('cpu'))),
    'map_location callable': (read, 'plain', dict(map_location=lambda storage, location: storage)),
    'map_location dict': (read, 'plain', dict(map_location={'cpu': 'cpu'})),
    'silent': (read, 'plain', dict(logger='silent')),
    'read missing': (read, 'nowhere', {}),
}


@pytest.mark.parametrize('case', CALLS)
def test_stock_stays_stock(weights, log, case):
    call, name, options = CALLS[case]
    patches.uninstall()
    off, off_error, off_state, off_lines = outcome(log, call, weights / f'{name}.pth', **options)
    patches.install()
    on, on_error, on_state, on_lines = outcome(log, call, weights / f'{name}.pth', **options)
    assert same(off, on) and same(off_state, on_state) and off_lines == on_lines
    assert isinstance(on_error, type(off_error))
    assert str(on_error) == str(off_error) or case == 'no dict' or case.endswith('missing')  # these say what to do


def test_a_home_in_the_path_is_found(weights, monkeypatch):
    monkeypatch.setenv('HOME', str(weights))
    for change in (patches.uninstall, patches.install):
        change()
        assert '0.weight' in CheckpointLoader.load_checkpoint('~/plain.pth')


def test_a_file_from_torchvision_is_where_mmengine_looks_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    torch.save(mobilenet_v2().state_dict(), tmp_path / 'hub' / 'checkpoints' / 'mobile.pth')
    for change in (patches.uninstall, patches.install):  # offline: found in the cache or not at all
        change()
        content = CheckpointLoader.load_checkpoint('https://download.invalid/some/where/mobile.pth?x=1')
        assert 'classifier.1.weight' in content
