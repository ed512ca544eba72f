"""Every change that importing fasternet_mm makes to a process, one row each; nothing elsewhere makes one.

``import fasternet_mm`` calls :func:`install`. A new change is a new row of ``PATCHES``. Its function imports what it
needs when it is called: mmcv's operators must be there before anything imports mmdet.models.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType

Undo = Callable[[], str | None]  # undoes a change; returns what of it stays, or None


@dataclass(frozen=True)
class Patch:
    """One change to the process.

    Attributes:
        target (str): What is changed.
        apply (Callable): Makes the whole change, or none of it, and returns what undoes it.
        why (str): The reason; where it is more permissive or stricter than stock, it says so.
        versions (str): The versions that need it.
        undone (str): What :func:`uninstall` does.
    """

    target: str
    apply: Callable[[], Undo] = field(repr=False)
    why: str
    versions: str
    undone: str = 'what stood there before returns'


def _provide_mmcv_ext() -> Undo:
    from .compat import EXT_NAME, TorchvisionExtFinder, require_mmcv

    require_mmcv()
    finder = TorchvisionExtFinder()
    sys.meta_path.append(finder)  # after the finder of compiled modules, so that a compiled mmcv wins

    def undo() -> str | None:
        sys.meta_path.remove(finder)
        if getattr(sys.modules.get(EXT_NAME), '__file__', None) != finder.file:
            return None
        if 'mmcv.ops' in sys.modules:
            return 'mmcv.ops was imported with operators from torchvision and keeps them'
        del sys.modules[EXT_NAME]

    return undo


def _leave_out_multimodal() -> Undo:
    from .compat import MultimodalFinder

    finder = MultimodalFinder()
    sys.meta_path.insert(0, finder)  # before the finder of files, which knows the module, too
    return lambda: sys.meta_path.remove(finder)


def _allow_globals() -> Undo:
    from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

    from .checkpoint.weights_only import safe_globals

    ours = set(safe_globals()) - set(get_safe_globals())
    add_safe_globals(list(ours))

    def undo() -> None:
        others = [entry for entry in get_safe_globals() if entry not in ours]
        clear_safe_globals()
        add_safe_globals(others)

    return undo


def _load_by(module: str, function: str, *prefixes: str) -> Undo:
    from mmengine.runner import CheckpointLoader

    loader = getattr(importlib.import_module(f'.checkpoint.{module}', __package__), function)
    before = dict(CheckpointLoader._schemes)
    CheckpointLoader.register_scheme(prefixes, loader, force=True)
    return lambda: _put_back(CheckpointLoader._schemes, before, dict.fromkeys(prefixes, loader))


def _check_loading() -> Undo:
    from .checkpoint.matching import checked

    ours = {}  # one for each function: another plugin may have wrapped it under one of its names alone
    for module, function in _named_load_state_dict():
        if hasattr(function, 'fasternet_mm'):  # from an earlier install, below another plugin's wrapper
            ours[function] = function.fasternet_mm
        else:
            module.load_state_dict = ours.setdefault(function, checked(function))
    for load in ours.values():
        load.active = True

    def undo() -> str | None:
        for load in ours.values():
            load.active = False
        wrapped = False
        for module, function in _named_load_state_dict():
            if getattr(function, 'fasternet_mm', None) is function:
                module.load_state_dict = function.__wrapped__
            else:
                wrapped |= hasattr(function, 'fasternet_mm')
        return 'another plugin wrapped it since: ours stays below its wrapper, and only passes on' if wrapped else None

    return undo


def _named_load_state_dict() -> Iterator[tuple[ModuleType, Callable]]:
    """Yield each module that has mmengine's function under its own name, and what stands there."""
    import mmengine.runner

    homes = {mmengine.runner.__name__, mmengine.runner.checkpoint.__name__}
    for name, module in list(sys.modules.items()):
        function = vars(module).get('load_state_dict') if isinstance(module, ModuleType) else None
        if function and homes & {name, getattr(function, '__module__', None)}:  # functools.wraps keeps __module__
            yield module, function


def _register(module: str, names: tuple[str, ...], registry: str, scopes: tuple[str, ...]) -> Undo:
    home = importlib.import_module(module, __package__)
    tables = [getattr(importlib.import_module(f'{scope}.registry'), registry).module_dict for scope in scopes]
    undos = [_put(table, {name: getattr(home, name) for name in names}) for table in tables]
    return lambda: '; '.join(filter(None, [undo() for undo in undos])) or None


def _register_in_mmseg(*names: str) -> Undo:
    try:
        return _register('.models', names, 'MODELS', ('mmseg',))
    except Exception:  # not installed, or broken, or made for another mmcv: it says so itself where it is used
        return lambda: None


def _register_pconv() -> Undo:
    from mmengine.registry import MODELS

    from .models import build_pconv_layer

    return _put(MODELS.module_dict, {'PConvBlock': build_pconv_layer})


def _count_pconv() -> Undo:
    from mmengine.registry import Registry

    from .models.conv_layer import counting

    stock = Registry.build
    ours = Registry.build = counting(stock)

    def undo() -> str | None:
        if Registry.build is not ours:
            return 'another plugin wrapped it since: ours stays below its wrapper'
        Registry.build = stock

    return undo


def _register_backend() -> Undo:
    from mmengine.fileio.backends import backends

    from .files import AtomicLocalBackend

    return _put(backends, {'atomic': AtomicLocalBackend})


def _register_models() -> Undo:
    from .hub import forget_models, register_models

    return partial(forget_models, register_models())


def _ignore_warning(message: str) -> Undo:
    before = list(warnings.filters)
    warnings.filterwarnings('ignore', message=message)
    ours = warnings.filters[0]

    def undo() -> None:
        if ours not in before and ours in warnings.filters:
            warnings.filters.remove(ours)

    return undo


def _put(entries: dict, values: dict) -> Undo:
    before = dict(entries)
    entries.update(values)
    return lambda: _put_back(entries, before, values)


def _put_back(entries: dict, before: dict, values: dict) -> str | None:
    """Make those of `entries` that still are as in `values` what they were before."""
    others = [key for key, value in values.items() if entries.get(key) is not value]
    for key in values.keys() - others:
        if key in before:
            entries[key] = before[key]
        else:
            del entries[key]
    return f'{", ".join(map(repr, others))} was registered by somebody else since, and stays' if others else None


# fmt: off
PATCHES = (
    Patch('import of mmcv._ext', _provide_mmcv_ext,
          'more permissive: mmcv-lite, which has no compiled operators, serves as mmcv, with those of torchvision',
          'mmcv-lite 2.x; a compiled mmcv wins', 'the finder goes; mmcv.ops, once imported, keeps its operators'),
    Patch('import of mmpretrain.utils.dependency', _leave_out_multimodal,
          'more permissive: mmpretrain can be imported, with its multimodal models as placeholders',
          'transformers >= 5, mmpretrain 1.2', 'the finder goes; mmpretrain, once imported, keeps its placeholders'),
    Patch('torch.serialization: safe globals', _allow_globals,
          "more permissive: mmengine's own checkpoints hold more than tensors, which torch refuses",
          'torch >= 2.6, mmengine 0.10', 'our entries go, those of others stay'),
    Patch('CheckpointLoader: local files', partial(_load_by, 'loading', 'load_from_local', ''),
          'stricter: missing, damaged (by checksum) and unsafe files are one clear error; more permissive: safetensors',
          'mmengine 0.10'),
    Patch('CheckpointLoader: http(s)', partial(_load_by, 'loading', 'load_from_http', 'http://', 'https://'),
          'stricter: held to size, hash and URL, and loaded with weights_only, which mmengine leaves out here',
          'mmengine 0.10'),
    Patch('CheckpointLoader: fasternet://', partial(_load_by, 'official', 'load_from_official', 'fasternet://'),
          "the authors' files by name", 'mmengine 0.10'),
    Patch('mmengine.runner.load_state_dict, under each of its names', _check_loading,
          'stricter for models with a FasterNet: any layout is recognised; what does not fit, or is NaN, is an error',
          'mmengine 0.10', "mmengine's own returns; below another plugin's wrapper ours stays, and only passes on"),
    # a scope finds an unprefixed name in itself or in mmengine's root, and a prefixed one in that scope alone
    Patch('MODELS of mmengine, mmdet and mmpretrain: FasterNet',
          partial(_register, '.models', ('FasterNet',), 'MODELS', ('mmengine', 'mmdet', 'mmpretrain')),
          'in all three it answers to every spelling from everywhere', 'mmengine 0.10'),
    Patch('MODELS of mmengine, mmdet and mmpretrain: ProjectedFasterNet',
          partial(_register, '.models', ('ProjectedFasterNet',), 'MODELS', ('mmengine', 'mmdet', 'mmpretrain')),
          'adapted configs name it', 'mmengine 0.10'),
    Patch('MODELS of mmseg, where it is installed: FasterNet, ProjectedFasterNet',
          partial(_register_in_mmseg, 'FasterNet', 'ProjectedFasterNet'),
          'it answers to mmseg.FasterNet, too; of mmseg this imports the registry alone', 'mmsegmentation 1.2'),
    Patch('MODELS of mmpretrain: FasterNetClsHead',
          partial(_register, '.models', ('FasterNetClsHead',), 'MODELS', ('mmpretrain',)),
          'configs name it', 'mmpretrain 1.x'),
    Patch('MODELS of mmengine: PConvBlock', _register_pconv,
          "mmcv's convolution layers stand there: conv_cfg=dict(type='PConvBlock')", 'mmengine 0.10, mmcv 2.x'),
    Patch('mmengine.registry.Registry.build', _count_pconv,
          'one line of the log after a model with PConvBlocks from conv_cfg says how many there are', 'mmengine 0.10',
          "mmengine's own returns; below another plugin's wrapper ours stays, and only counts"),
    Patch('HOOKS of mmengine: AtomicCheckpointHook, ExactResumeHook, FiniteLossHook',
          partial(_register, '.engine', ('AtomicCheckpointHook', 'ExactResumeHook', 'FiniteLossHook'), 'HOOKS',
                  ('mmengine',)),
          'configs name them', 'mmengine 0.10'),
    Patch("mmengine's file backend 'atomic'", _register_backend,
          'AtomicCheckpointHook writes through it', 'mmengine 0.10'),
    Patch("mmpretrain's ModelHub: six FasterNets", _register_models,
          'list_models and get_model know them', 'mmpretrain 1.x'),
    Patch('warnings: pkg_resources is deprecated', partial(_ignore_warning, 'pkg_resources is deprecated'),
          'quieter: mmengine reads `mmdet::` configs through it, once a base', 'setuptools >= 67, mmengine 0.10'),
)
# fmt: on

_undos: dict[str, Undo] = {}  # of the rows in force, in the order in which they were applied


def install() -> None:
    """Apply the rows that are not in force. Where one fails it changes nothing, and a further call goes on from it."""
    for patch in PATCHES:
        if patch.target not in _undos:
            _undos[patch.target] = patch.apply()


def uninstall() -> dict[str, str]:
    """Undo the rows in force, the last one first, and return by target what cannot be undone."""
    stays = {}
    while _undos:
        target, undo = _undos.popitem()
        if remains := undo():
            stays[target] = remains
    return stays


def active() -> tuple[Patch, ...]:
    """Return the rows in force."""
    return tuple(patch for patch in PATCHES if patch.target in _undos)
