"""The names that FasterNet's tensors have in the files of the world, and the maps between them.

========  ============================================================  ======================================
layout    backbone                                                      classification head
========  ============================================================  ======================================
mm        ``backbone.`` before the official names                       ``head.conv``, ``head.fc``
official  ``stages.0 .2 .4 .6`` are stages, ``.1 .3 .5`` the mergings   ``avgpool_pre_head.1``, ``head``
timm      ``stages.0`` to ``.3``, the mergings are their ``downsample``  ``conv_head``, ``classifier``
========  ============================================================  ======================================

Detectors are named alike in mm and official files: mmdet 2.x and 3.x agree. Nothing here knows a model.
"""

import re
from collections.abc import Container

from torch import Tensor

from ..errors import CheckpointError

LAYOUTS = ('mm', 'official', 'timm')

# every FasterNet has this tensor, and no other network
_MARK = 'stages.0.blocks.0.spatial_mixing.partial_conv3.weight'
_BACKBONE = 'backbone.'
_HEADS = {
    'official': {
        'head.conv.weight': 'avgpool_pre_head.1.weight',
        'head.fc.weight': 'head.weight',
        'head.fc.bias': 'head.bias',
    },
    'timm': {
        'head.conv.weight': 'conv_head.weight',
        'head.fc.weight': 'classifier.weight',
        'head.fc.bias': 'classifier.bias',
    },
}


class Layout:
    """Recognise how the tensors of one state dict are named.

    Args:
        state_dict (dict): Tensors by name.

    Attributes:
        kind (str): 'mm', 'official' or 'timm'; 'unrecognised' without a FasterNet in it, and with more than one.
        prefix (str): What stands before the backbone's own names.
        part (str): What the file holds: 'classifier', 'detector', 'backbone', or 'model' where it is unrecognised.
    """

    def __init__(self, state_dict: dict) -> None:
        self._names = {name for name, value in state_dict.items() if isinstance(value, Tensor)}
        prefixes = [name.removesuffix(_MARK) for name in self._names if name.endswith(_MARK)]
        self.kind, self.prefix, self.part = 'unrecognised', '', 'model'
        if len(prefixes) != 1:
            return
        (self.prefix,) = prefixes
        own = [name.removeprefix(self.prefix) for name in self._names if name.startswith(self.prefix)]
        if any(re.match(r'stages\.\d+\.downsample\.', name) for name in own):
            self.kind = 'timm'
        else:
            self.kind = 'mm' if self.prefix.endswith(_BACKBONE) else 'official'
        if self.kind == 'mm':
            heads = [name for name in self._names if not name.startswith(self.prefix)]
            classifier = any(name.startswith('head.') for name in heads)
        else:
            classifier = heads = set(own) & set(_HEADS[self.kind].values())
        self.part = 'classifier' if classifier else 'detector' if heads else 'backbone'

    def __str__(self) -> str:
        kind = 'mm or official' if (self.kind, self.part) == ('mm', 'detector') else self.kind
        return f'{kind} {self.part}'

    def to_mm(self, name: str) -> str:
        """Return the name in layout mm of a tensor of this state dict; what is not of FasterNet keeps its name."""
        if self.kind in ('mm', 'unrecognised') or name not in self._names or not name.startswith(self.prefix):
            return name
        name = name.removeprefix(self.prefix)
        for mm, here in _HEADS[self.kind].items():
            if name == here:
                return mm
        if self.kind == 'timm':
            name = re.sub(r'^stages\.(\d+)\.downsample\.', lambda m: f'merging.{2 * int(m[1]) - 1}.', name)
            name = re.sub(r'^stages\.(\d+)\.', lambda m: f'stages.{2 * int(m[1])}.', name)
            name = re.sub(r'^merging\.', 'stages.', name)
        return _BACKBONE + name


def convert_state_dict(state_dict: dict, to: str) -> dict:
    """Rename the tensors of a FasterNet. Nothing is lost: the same tensors in the same order, under other names.

    Args:
        state_dict (dict): Tensors by name, in any layout.
        to (str): 'mm', 'official' or 'timm'.

    Raises:
        CheckpointError: If no FasterNet is recognised, or the layout has no place for a tensor (timm has none for a
            detector and its output norms).
    """
    layout = Layout(state_dict)
    if layout.kind == 'unrecognised':
        raise CheckpointError(f'the checkpoint holds no FasterNet, or several: not just one tensor is named ...{_MARK}')
    renamed = {layout.to_mm(name): tensor for name, tensor in state_dict.items()}
    if to == 'mm' or (to == 'official' and layout.part == 'detector'):
        return renamed
    names = {name: _from_mm(name, to) if isinstance(tensor, Tensor) else name for name, tensor in renamed.items()}
    homeless = [name for name, there in names.items() if there is None]
    if homeless:
        raise CheckpointError(
            f'layout {to} has no place for {len(homeless)} of {len(names)} tensors ({", ".join(homeless[:10])}'
            f'{", ..." if len(homeless) > 10 else ""}); it holds a classifier, or a backbone without output norms'
        )
    return {names[name]: tensor for name, tensor in renamed.items()}


def _from_mm(name: str, to: str) -> str | None:
    if name in _HEADS[to]:
        return _HEADS[to][name]
    if not name.startswith(_BACKBONE):
        return None
    name = name.removeprefix(_BACKBONE)
    if to == 'official':
        return name
    stage = re.match(r'stages\.(\d+)\.', name)
    if stage is None:
        return name if name.startswith('patch_embed.') else None
    index, rest = int(stage[1]), name[stage.end() :]
    return f'stages.{index // 2}.{rest}' if index % 2 == 0 else f'stages.{index // 2 + 1}.downsample.{rest}'


def rename_to_mm(state_dict: dict, prefix: str = '') -> None:
    """Rename the tensors of a whole classifier in place, from any layout to mm.

    Args:
        state_dict (dict): Tensors by name; one in which no FasterNet is recognised is left as it is.
        prefix (str): Name of the classifier in it; below another model's name nothing is renamed.
    """
    if not prefix:
        layout, tensors = Layout(state_dict), dict(state_dict)
        state_dict.clear()
        state_dict.update((layout.to_mm(name), tensor) for name, tensor in tensors.items())


def fit_layout(state_dict: dict, wanted: Container[str]) -> tuple[Layout, dict, list[str]]:
    """Rename the tensors of a file for a model.

    Args:
        state_dict (dict): Tensors by name, in any layout.
        wanted (Container[str]): The names of the model's own tensors.

    Returns:
        tuple[Layout, dict, list[str]]: What was recognised, the state dict as the model names it, and the names in the
        file of what is left out: a classifier's head where the model has none of this kind, and all but the backbone
        where the model is one. What needs no change, and what is not recognised, is returned as it is.
    """
    layout = Layout(state_dict)
    if layout.kind == 'unrecognised':
        return layout, state_dict, []
    names = {name: layout.to_mm(name) for name in state_dict}
    head = _HEADS['official']
    if 'head.conv.weight' in names.values() and 'head.conv.weight' not in wanted:
        names = {name: mm for name, mm in names.items() if mm not in head}
    if _MARK in wanted:
        prefix = layout.prefix if layout.kind == 'mm' else _BACKBONE
        names = {name: mm.removeprefix(prefix) for name, mm in names.items() if mm.startswith(prefix)}
    if all(name == mm for name, mm in names.items()) and len(names) == len(state_dict):
        return layout, state_dict, []
    renamed = {mm: state_dict[name] for name, mm in names.items()}
    return layout, renamed, [name for name in state_dict if name not in names]
