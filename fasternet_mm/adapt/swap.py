"""Put a FasterNet into the config of a detector, a classifier or a segmentor in place of its backbone."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmengine.config import Config, ConfigDict

from ..checkpoint import require_source
from ..engine.explaining import cause
from ..errors import UserError, did_you_mean
from ..models import FasterNet
from .maps import Map, build_whole, installed_config, maps_of, outputs_of, shapes_after, told, without_weights
from .segmentors import head_changes, stages_of

SCOPES = {'mmdet': 'MMDetection', 'mmpretrain': 'MMPretrain', 'mmseg': 'MMSegmentation'}
_PIXELS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])  # of the ImageNet weights, in RGB order
_OUR_STRIDES = (4, 8, 16, 32)
_HINT = '; --project lets it see what it saw'
_NO_HEADS = ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg', 'init_cfg')
_DECAYS = ('LearningRateDecayOptimizerConstructor', 'LayerDecayOptimizerConstructor')  # know their backbones by name


class StockError(UserError):
    """Raised where a config cannot be built or run here with its own backbone either."""


@dataclass
class Adaptation:
    """What changes in a config.

    Attributes:
        changes (dict): What a leaf config says, ``_delete_`` included.
        notes (list[str]): What the user should know, a line each.
    """

    changes: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def applied(self, cfg: Config) -> Config:
        """Return a copy of `cfg` with the changes, as a leaf config that inherits from it would be read."""
        return Config(Config._merge_a_into_b(copy.deepcopy(self.changes), copy.deepcopy(cfg.to_dict())))


def with_fasternet(cfg: Config, arch: str = 't0', checkpoint: str | None = None, project: bool = False) -> Config:
    """Return `cfg` with a FasterNet as its backbone; `cfg` is not changed.

    Args:
        cfg (Config): Config of mmdet, mmpretrain or mmseg.
        arch (str): 't0', 't1', 't2', 's', 'm' or 'l'. Defaults to 't0'.
        checkpoint (str, optional): File, URL or ``fasternet://NAME`` of the backbone's weights, or 'none' for random
            ones. Defaults to the authors' ImageNet weights of `arch`.
        project (bool): Put a 1x1 convolution and resampling behind each output, so that necks and heads see the
            channels and strides that they saw; for what cannot be met without. Defaults to False.

    Raises:
        UserError: If something in the config asks for what FasterNet does not have; it is named.
    """
    return adapt(cfg, arch, checkpoint, project).applied(cfg)


def adapt(cfg: Config, arch: str = 't0', checkpoint: str | None = None, project: bool = False) -> Adaptation:
    """Return what :func:`with_fasternet` changes, and what the user should know about it. The arguments are the same.

    The old backbone and its neck are run without weights, and the neck must make of FasterNet's maps the very shapes
    that it made of the old ones. Where heads take the maps themselves, the whole model is run.
    """
    scope = cfg.get('default_scope')
    if scope not in SCOPES:
        raise UserError(f'default_scope is {scope!r}, expected one of {", ".join(SCOPES)}')
    if arch not in FasterNet.arch_settings:
        expected = ', '.join(FasterNet.arch_settings)
        raise UserError(
            f'arch must be one of {expected}, but is {arch!r}{did_you_mean(str(arch), FasterNet.arch_settings)}'
        )
    checkpoint = checkpoint or f'fasternet://fasternet_{arch}'
    if checkpoint != 'none':
        require_source(checkpoint)

    path, owner = _find_owner(cfg.get('model'))
    result = Adaptation(dict(custom_imports=_custom_imports(cfg)))
    settings = dict(arch=arch)
    if checkpoint != 'none':
        settings['init_cfg'] = dict(type='Pretrained', checkpoint=checkpoint)
    model = _swap(owner, f'model.{path}.' if path else 'model.', scope, settings, project)
    if owner.get('pretrained'):  # mmseg's way to name the backbone's weights
        model['pretrained'] = None
    if path:
        model = {path: model}
    result.changes['model'] = model
    _drop_whole_checkpoints(cfg, path, result)
    _find_teacher(cfg.model, result)
    if checkpoint != 'none':
        _follow_pixels(cfg, scope, path, result)
    _look_at_optimizer(cfg, scope, arch, result)
    whole = scope == 'mmseg' or not project and 'neck' not in model.get(path, model)
    _require_working(cfg, result.applied(cfg), scope, whole, '' if project else _HINT)
    return result


def _find_owner(model: Mapping | None) -> tuple[str, ConfigDict]:
    """Return the key of the part of the model whose backbone is replaced, '' for the model itself, and its settings."""
    for path in ('', 'detector'):
        owner = (model or {}).get(path) if path else model
        if isinstance(owner, Mapping) and isinstance(owner.get('backbone'), Mapping) and 'type' in owner['backbone']:
            return path, owner
    raise UserError(f'the config has no model.backbone and no model.detector.backbone{_type_told(model)}')


def _type_told(model: Mapping | None) -> str:
    return f'; its model is a {model["type"]}' if isinstance(model, Mapping) and 'type' in model else ''


def _custom_imports(cfg: Config) -> dict:
    before = cfg.get('custom_imports') or {}
    imports = before.get('imports', [])
    others = [name for name in ([imports] if isinstance(imports, str) else imports) if name != 'fasternet_mm']
    return dict(imports=['fasternet_mm', *others], allow_failed_imports=before.get('allow_failed_imports', False))


def _swap(owner: ConfigDict, place: str, scope: str, settings: dict, project: bool) -> dict:
    """Return the changes of the part of a model that has the backbone, with a FasterNet of `settings`."""
    old = _old_maps(owner.backbone, scope, f'{place}backbone')
    if project:
        maps = old
        if scope == 'mmseg' and len(old) == 1:  # some give more in training
            maps = _old_maps(owner.backbone, scope, f'{place}backbone', training=True)
        strides = [each.stride for each in maps]
        channels = [each.channels for each in maps]
        kind = dict(_delete_=True, type='ProjectedFasterNet')
        backbone = dict(kind, fasternet=settings, out_channels=channels, out_strides=strides)
        if scope == 'mmseg' and (stages := stages_of(strides)):
            backbone['stages'] = stages
        if maps != old and old[0] in maps:
            backbone['predicts'] = maps.index(old[0])
        found = _old_maps(
            ConfigDict({key: value for key, value in backbone.items() if key != '_delete_'}), scope, place
        )
        if found != old:
            raise UserError(f'{place}backbone gives {told(old)}, but a projected FasterNet {told(found)}')
        return dict(backbone=backbone)
    neck = owner.get('neck')
    first = neck[0] if isinstance(neck, Sequence) else neck
    if first is None or 'in_channels' not in first:
        backbone, new = _matching(old, scope, settings, f'{place}backbone')
        if scope == 'mmseg':
            heads = head_changes(owner, [each.channels for each in old], [each.channels for each in new])
        else:
            heads = _edit_heads(owner, old, new)
        return dict(backbone=backbone, **heads)
    start = first.get('start_level') or 0
    for left_out in sorted({start, 0}, reverse=True):  # some necks cannot do without the outputs that they leave out
        try:
            backbone, new = _matching(old[left_out:], scope, settings, f'{place}backbone')
            edits = _edit_neck(first, old, new, left_out, f'{place}neck')
            expected, found = _after_neck(first, {**first, **edits}, old, new, scope, f'{place}neck')
            break
        except UserError:
            if left_out == 0:
                raise
    whole = [dict(first, **edits), *map(dict, neck[1:])] if isinstance(neck, Sequence) else edits
    heads = head_changes(owner, expected, found) if expected != found else {}
    return dict(backbone=backbone, neck=whole, **heads)


def _old_maps(backbone: ConfigDict, scope: str, place: str, training: bool = False) -> list[Map]:
    try:
        return maps_of(backbone, scope, training)
    except UserError as error:
        raise UserError(f'{place}: {error}') from error
    except Exception as error:
        raise StockError(f'{place}, {backbone.type}, cannot be run here itself: {cause(error)}') from error


def _matching(old: Sequence[Map], scope: str, settings: dict, place: str) -> tuple[dict, list[Map]]:
    """Return the settings of the FasterNet with the strides of `old`, and its maps."""
    strides = [each.stride for each in old]
    if not set(strides) <= set(_OUR_STRIDES) or sorted(set(strides)) != strides:
        raise UserError(
            f'{place} gives {told(old)}; FasterNet has each of the strides 4, 8, 16, 32 once, in this order, and no '
            'other: --project makes them'
        )
    indices = tuple(_OUR_STRIDES.index(stride) for stride in strides)
    embed_dims = FasterNet.arch_settings[settings['arch']]['embed_dims']
    backbone = dict(_delete_=True, type='FasterNet', arch=settings['arch'])
    if indices != (0, 1, 2, 3):
        backbone['out_indices'] = indices
    if scope != 'mmpretrain':
        backbone['out_norm'] = True  # as in the official detection model
    return {**backbone, **settings}, [Map(embed_dims * 2**index, _OUR_STRIDES[index]) for index in indices]


def _edit_neck(neck: ConfigDict, old: Sequence[Map], new: Sequence[Map], start: int, place: str) -> dict:
    asked = neck.in_channels
    edits = dict(in_channels=_follow(asked, old, new, start))
    if edits['in_channels'] is None:
        raise UserError(f'{place}.in_channels is {asked!r}, but the backbone of the config gives {told(old)}')
    if start:
        edits['start_level'] = 0
        if neck.get('end_level', -1) > 0:
            edits['end_level'] = neck.end_level - start
    return edits


def _follow(asked: int | Sequence[int], old: Sequence[Map], new: Sequence[Map], start: int = 0, index: int = -1):
    """Return what stands for the channels `asked` of the old maps, or None where they are not the old maps'."""
    before, after = [each.channels for each in old], [each.channels for each in new]
    if isinstance(asked, int):
        return after[index] if asked == before[index] else None
    if list(asked) == before:
        return type(asked)(after)
    return type(asked)(after[::-1]) if list(asked) == before[::-1] and not start else None


def _after_neck(before, after, old: Sequence[Map], new: Sequence[Map], scope: str, place: str) -> list[list[int]]:
    """Return the channels of what the neck made of `old` and makes of `new`; its maps' sides must be the same.

    mmseg's heads can follow other channels: its JPU passes maps on.
    """
    try:
        expected = shapes_after(before, scope, old)
    except Exception as error:
        raise StockError(
            f'{place}, {before["type"]}, cannot be run here with its own backbone: {cause(error)}'
        ) from error
    try:
        found = shapes_after(ConfigDict(after), scope, new)
    except Exception as error:
        raise UserError(
            f'{place}, {before["type"]}, does not take {told(new)} of FasterNet: {cause(error)}{_HINT}'
        ) from error
    first = 2 if scope == 'mmseg' else 0  # of the sizes that must agree
    if [shape[first:] for shape in found] != [shape[first:] for shape in expected]:
        raise UserError(
            f'{place}, {before["type"]}, makes {found} of the maps of FasterNet, but the heads expect {expected}'
        )
    return [[shape[1] for shape in shapes] for shapes in (expected, found)]


def _edit_heads(owner: ConfigDict, old: Sequence[Map], new: Sequence[Map]) -> dict:
    """Return the changes of the heads that take the backbone's maps as they are, or pooled."""
    edits = {}
    for name, head in owner.items():
        if (
            name not in _NO_HEADS
            and isinstance(head, Mapping)
            and isinstance(head.get('in_channels'), (int, list, tuple))
        ):
            index = head.get('in_index', -1)
            channels = _follow(head.in_channels, old, new, index=index if isinstance(index, int) else -1)
            if channels is not None:
                edits[name] = dict(in_channels=channels)
    return edits


def _drop_whole_checkpoints(cfg: Config, path: str, result: Adaptation) -> None:
    """Leave out checkpoints of whole models with the old backbone: they no longer fit."""
    model = result.changes['model']
    places = [(cfg, 'load_from', result.changes), (cfg.model, 'init_cfg', model)]
    if path:
        places.append((cfg.model[path], 'init_cfg', model[path]))
    for settings, key, changes in places:
        value = settings.get(key)
        if isinstance(value, Mapping) and value.get('type') == 'Pretrained':
            value = value.get('checkpoint')
        elif key == 'init_cfg':
            continue
        if value:
            changes[key] = None
            result.notes.append(f'{key}={value} is left out: it is a model with the old backbone')


def _find_teacher(model: ConfigDict, result: Adaptation) -> None:
    """Name the installed file of a teacher's config, which mmdet names relative to a checkout of its own."""
    given = model.get('teacher_config')
    if isinstance(given, str) and (found := installed_config(given)) != given:
        result.changes['model']['teacher_config'] = found
        result.notes.append(f'teacher_config={given} is in a checkout of mmdet: the installed one stands here instead')


def _follow_pixels(cfg: Config, scope: str, path: str, result: Adaptation) -> None:
    """Let mean, std and order of the channels be those of the ImageNet weights, wherever the config says them."""
    model = result.changes['model']
    places = [(cfg.model, model)]
    if path:
        places.append((cfg.model[path], model[path]))
    if scope == 'mmpretrain' and not cfg.model.get('data_preprocessor'):
        places = [(cfg, result.changes)]
    for settings, changes in places:
        before = settings.get('data_preprocessor')
        while isinstance(before, Mapping) and isinstance(before.get('data_preprocessor'), Mapping):
            changes = changes.setdefault('data_preprocessor', {})
            before = before.data_preprocessor
        if not isinstance(before, Mapping):
            continue
        order = 'to_rgb' if scope == 'mmpretrain' or 'to_rgb' in before else 'bgr_to_rgb'
        wanted = dict(_PIXELS, **{order: True})
        edits = {key: value for key, value in wanted.items() if before.get(key) != value}
        if before.get('rgb_to_bgr'):
            edits['rgb_to_bgr'] = False
        if edits:
            changes['data_preprocessor'] = edits


def _look_at_optimizer(cfg: Config, scope: str, arch: str, result: Adaptation) -> None:
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer = wrapper.get('optimizer') or {}
    if wrapper.get('constructor') in _DECAYS:
        result.changes['optim_wrapper'] = dict(constructor='DefaultOptimWrapperConstructor', paramwise_cfg=None)
        result.notes.append(f'{wrapper["constructor"]} knows the layers of its own backbones alone: it is left out')
    if optimizer.get('type') == 'SGD' and scope == 'mmdet':
        rate = '1e-4' if arch in 'ml' else '2e-4'
        result.notes += [
            f'the optimizer stays, SGD at {optimizer.get("lr")}; the paper (table 7) trains its detectors with',
            f"    optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr={rate}, weight_decay=1e-4))",
        ]


def _require_working(cfg: Config, adapted: Config, scope: str, whole: bool, hint: str) -> None:
    """Raise UserError where the whole model cannot be built: something asks for an attribute of the old backbone.

    With `whole`, both models are run, and must give the same shapes: no neck stands between the heads and the maps, or
    the heads may have followed. `hint` says what helps where that fails.
    """
    place, do = f'model, {cfg.model.type},', 'run' if whole else 'built'
    work = outputs_of if whole else _builds
    try:
        found = without_weights(work, adapted, scope)
    except Exception as error:
        try:
            without_weights(work, cfg, scope)
        except Exception as own:
            raise StockError(f'{place} cannot be {do} here with its own backbone: {_told(own)}') from own
        hint = hint if whole and not isinstance(error, AttributeError) else ''
        raise UserError(f'{place} cannot be {do} with a FasterNet: {_told(error)}{hint}') from error
    if whole and found != (expected := without_weights(work, cfg, scope)):
        raise UserError(f'{place} gives {found} with a FasterNet, but {expected} with its own backbone')


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else cause(error)


def _builds(cfg: Config, scope: str) -> None:
    build_whole(cfg, scope)
