"""The authors' published weights, by name."""

import difflib
import hashlib
from pathlib import Path

from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from ..errors import CheckpointError, did_you_mean
from .loading import cached_file, file_sha256, load_url, require_file, split_url

SCHEME = 'fasternet://'
# mmengine's own names of weights, by scheme; it answers with a bare KeyError where there is none
_ZOOS = {
    'mmcls': (get_mmcls_models,),
    'modelzoo': (get_torchvision_models,),
    'open-mmlab': (get_external_models, get_deprecated_model_names),
    'openmmlab': (get_external_models, get_deprecated_model_names),
    'torchvision': (get_torchvision_models,),
}
_RELEASE = 'https://github.com/JierunChen/FasterNet/releases/download/v1.0/'
# neither sizes nor hashes are published; a known hash goes after the name, as '#sha256=<64 hexadecimal digits>'
_FILES = dict(
    fasternet_t0='fasternet_t0-epoch.281-val_acc1.71.9180.pth',
    fasternet_t1='fasternet_t1-epoch.291-val_acc1.76.2180.pth',
    fasternet_t2='fasternet_t2-epoch.289-val_acc1.78.8860.pth',
    fasternet_s='fasternet_s-epoch.299-val_acc1.81.2840.pth',
    fasternet_m='fasternet_m-epoch.291-val_acc1.82.9620.pth',
    fasternet_l='fasternet_l-epoch.299-val_acc1.83.5060.pth',
    mask_rcnn_fasternet_s='mask_rcnn_fasternet_s_fpn_1x_coco_20221111_063419.pth',
    mask_rcnn_fasternet_m='mask_rcnn_fasternet_m_fpn_1x_coco_20221107_124408.pth',
    mask_rcnn_fasternet_l='mask_rcnn_fasternet_l_fpn_1x_coco_20221107_004433.pth',
)


def official_url(name: str) -> str:
    """Return the URL of the authors' file `name`: 'fasternet_t0' to '_l', and 'mask_rcnn_fasternet_s', '_m', '_l'.

    Raises:
        CheckpointError: If there is no file of that name.
    """
    name, *fragment = name.removeprefix(SCHEME).partition('#')
    if name not in _FILES:
        near = difflib.get_close_matches(name, _FILES, 1)
        advice = f'; did you mean {SCHEME}{near[0]}?' if near else ''
        raise CheckpointError(f'{SCHEME}{name} is none of the official weights: {", ".join(_FILES)}{advice}')
    return _RELEASE + _FILES[name] + ''.join(fragment)


def load_from_official(filename: str, map_location=None):
    """Load ``fasternet://NAME`` for mmengine: it is downloaded once, as :func:`load_from_http` does."""
    url = official_url(filename)
    return load_url(url, _kept_at(url), map_location)


def _kept_at(url: str) -> Path:
    """Return where an official file is kept: under a name that no other URL's file shares."""
    url = url.partition('#')[0]
    file = cached_file(url)
    return file.with_stem(f'{file.stem}-{hashlib.sha256(url.encode()).hexdigest()[:8]}')


def checkpoint_sha256(checkpoint: str | None) -> str | None:
    """Return the SHA-256 of a file, or of what was downloaded for a URL or name; None where it is not here."""
    if checkpoint is None:
        return None
    if checkpoint.startswith(SCHEME):
        file = _kept_at(official_url(checkpoint))
    elif checkpoint.startswith(('http://', 'https://')):
        file = cached_file(checkpoint)
    else:
        file = Path(checkpoint).expanduser()
    return file_sha256(file) if file.is_file() else None


def require_source(checkpoint: str) -> None:
    """Raise CheckpointError where `checkpoint` is a local file that is not there, or of no known scheme or name."""
    scheme, _, name = checkpoint.partition('://')
    if checkpoint.startswith(SCHEME):
        split_url(official_url(checkpoint))
    elif scheme in _ZOOS:
        known = {entry for names in _ZOOS[scheme] for entry in names()}
        if name not in known:
            raise CheckpointError(f'{checkpoint} is none of the weights that mmengine knows{did_you_mean(name, known)}')
    elif checkpoint.startswith(('http://', 'https://')):
        split_url(checkpoint)
    elif CheckpointLoader._get_checkpoint_loader(checkpoint) is CheckpointLoader._schemes['']:
        require_file(checkpoint)
