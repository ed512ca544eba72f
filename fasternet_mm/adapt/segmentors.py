"""What depends on the backbone in a segmentor of mmseg, and a batch to try one with."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData


def head_changes(owner: ConfigDict, before: Sequence[int], after: Sequence[int]) -> dict:
    """Return the changes of ``decode_head`` and ``auxiliary_head``, each a head or a list of them.

    Args:
        owner (ConfigDict): The segmentor.
        before (Sequence[int]): Channels of the maps that the heads get in the config as it is.
        after (Sequence[int]): Channels of those that they get with a FasterNet.
    """
    changes = {}
    for name in ('decode_head', 'auxiliary_head'):
        heads = owner.get(name) or []
        if isinstance(heads, Mapping):
            edits = _edits(heads, before, after)
        else:
            edits = [_edits(head, before, after) for head in heads]
            if any(edits):  # a leaf config can replace a list only as a whole
                edits = [Config._merge_a_into_b(edit, copy.deepcopy(head)) for edit, head in zip(edits, heads)]
        if any(edits):
            changes[name] = edits
    return changes


def _edits(head: ConfigDict, before: Sequence[int], after: Sequence[int]) -> dict:
    edits = {}
    inner = head.get('kernel_generate_head')  # of K-Net
    if inner and (changes := _edits(inner, before, after)):
        edits['kernel_generate_head'] = changes
    if head.get('c1_in_channels') == before[0] != after[0]:  # of DeepLabV3+, which takes the first map, too
        edits['c1_in_channels'] = after[0]
    asked = head.get('in_channels') or ()
    indices = head.get('in_index', -1 if isinstance(asked, int) else range(len(asked)))
    indices = [indices] if isinstance(indices, int) else indices
    if not all(-len(before) <= index < len(before) for index in indices):
        return edits
    old, new = [before[index] for index in indices], [after[index] for index in indices]
    if old != new and asked in (old[0], old, tuple(old)):
        edits['in_channels'] = new[0] if isinstance(asked, int) else type(asked)(new)
        # a head as wide as its input: HRNet's, and those that have no convolution of their own
        if head.get('channels') == sum(old) and (len(old) > 1 or head.get('num_convs') == 0):
            edits['channels'] = sum(new)
    return edits


def stages_of(strides: Sequence[int]) -> list[int] | None:
    """Return the stage of FasterNet, 0 to 3, for each map of a segmentor, or None where the strides say it themselves.

    Dilated stages and those of vision transformers have one stride: the deepest map is the last stage's, as the head
    takes it, though another stage has the stride.
    """
    ours = len(set(strides)) == len(strides) and {4, 8, 16, 32} >= set(strides)
    if ours or list(strides) != sorted(strides) or len(strides) > 4:
        return None
    return list(range(4 - len(strides), 4))


def side_of(model: ConfigDict) -> int | None:
    """Return the side of the images that a segmentor needs, or None if small ones will do."""
    heads = model.get('decode_head') or {}
    return 512 if isinstance(heads, Mapping) and heads.get('type') == 'LRASPPHead' else None  # it pools 49 pixels


def backbone_of_side(backbone: ConfigDict, side: int) -> ConfigDict:
    """Return the settings of a backbone for images of `side` pixels: BEiT's and MAE's take those of one size alone."""
    return ConfigDict(backbone, img_size=(side, side)) if backbone.type in ('BEiT', 'MAE') else backbone


def of_side(cfg: Config, side: int) -> Config:
    """Return a copy of `cfg` for images of `side` pixels, which mmseg does not pad to more."""
    cfg = copy.deepcopy(cfg)
    if cfg.default_scope == 'mmseg' and 'backbone' in cfg.model:
        cfg.model.backbone = backbone_of_side(cfg.model.backbone, side)
        if cfg.model.get('data_preprocessor', {}).get('size'):
            cfg.model.data_preprocessor.size = (side, side)
    return cfg


def segmentation_batch(side: int) -> dict[str, Any]:
    """Return two images of noise with two classes in stripes, as a data loader of mmseg gives them."""
    from mmseg.structures import SegDataSample

    labels = (torch.arange(side) // 16 % 2).expand(1, side, side).clone()
    edges = labels.diff(dim=-1, prepend=labels[..., :1]).abs()
    truth = dict(gt_sem_seg=PixelData(data=labels), gt_edge_map=PixelData(data=edges))
    shape = (side, side)
    info = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, padding_size=[0, 0, 0, 0])
    samples = [SegDataSample(metainfo=info, **truth).clone() for _ in range(2)]
    return dict(inputs=list(torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)), data_samples=samples)
