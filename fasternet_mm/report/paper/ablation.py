"""Table 5 of the paper: FasterNet with other partial ratios, norms and activations."""

from functools import partial

from ..schema import Published
from .networks import fasternet
from .rows import PAPER, Row, published_rows

_GELU, _RELU = dict(type='GELU'), dict(type='ReLU')
_WIDTH = "ours: T0's width and depth, with which the paper has no such row"
_COST = "its width and depth are ours, for T0's multiply-adds: the paper changed them, and does not say to what"
# by name: the paper's row, the variant, what differs in its backbone, and what belongs beside its numbers
_ROWS = {
    'T0': ('T0', 't0', {}, None),
    'T0 r=1/2, equal width': (None, 't0', dict(n_div=2), _WIDTH),
    'T0 r=1/2': (
        'T0 r=1/2', 't0', dict(n_div=2, arch=dict(embed_dims=36, depths=(1, 2, 7, 2), act_cfg=_GELU)), _COST,
    ),
    'T0 r=1/8, equal width': (None, 't0', dict(n_div=8), _WIDTH),
    'T0 r=1/8': (
        'T0 r=1/8', 't0', dict(n_div=8, arch=dict(embed_dims=40, depths=(1, 2, 9, 2), act_cfg=_GELU)), _COST,
    ),
    'T0 LN': ('T0 LN', 't0', dict(norm_cfg=dict(type='mmpretrain.LN2d')), 'LN over the channels of a pixel, as LN2d'),
    'T0 GN': (
        None, 't0', dict(norm_cfg=dict(type='GN', num_groups=1)), 'ours: GN of one group, over all of an image',
    ),
    'T0 ReLU': ('T0 ReLU', 't0', dict(act_cfg=_RELU), None),
    'T2': ('T2', 't2', {}, None),
    'T2 GELU': ('T2 GELU', 't2', dict(act_cfg=_GELU), None),
}  # fmt: skip
_NOT_SAID = 'T0 ReLU, modified'


def ablation() -> list[Row]:
    """Return the rows of table 5, and those of ours beside them."""
    source = dict(source=f'table 5 {PAPER}', hardware='RTX 2080 Ti, BN fused')
    quoted = {entry['network']: Published(**entry, **source) for entry in published_rows('table5_ablation')}
    rows = []
    for name, (published, variant, backbone, label) in _ROWS.items():
        build, figures = partial(fasternet, variant, **backbone), quoted.get(published)
        if figures:
            figures.note = label
        labels = (label,) if label else ()
        rows.append(Row(name, figures, (224, 224), build, labels=labels, reference=variant.upper()))
    reason = 'the paper does not say which width and depth it has'
    return [*rows, Row(_NOT_SAID, quoted[_NOT_SAID], (224, 224), None, reason)]
