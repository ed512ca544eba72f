"""The authors' published weights, by name."""

from pathlib import Path

from mmengine.runner import CheckpointLoader

from ..errors import CheckpointError
from .loading import cached_file, file_sha256, load_from_http, require_file

SCHEME = 'fasternet://'
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
    """The URL of the authors' file `name`: 'fasternet_t0' to '_l', and 'mask_rcnn_fasternet_s', '_m', '_l'.

    Raises:
        CheckpointError: If there is no file of that name.
    """
    name, *fragment = name.removeprefix(SCHEME).partition('#')
    if name not in _FILES:
        raise CheckpointError(f'{SCHEME}{name} is none of the official weights: {", ".join(_FILES)}')
    return _RELEASE + _FILES[name] + ''.join(fragment)


@CheckpointLoader.register_scheme(prefixes=SCHEME, force=True)
def load_official(filename: str, map_location=None):
    """mmengine's loader for ``fasternet://NAME``: downloads once, as :func:`load_from_http`."""
    return load_from_http(official_url(filename), map_location)


def checkpoint_sha256(checkpoint: str | None) -> str | None:
    """Of the file, or of what was downloaded for the URL or name; None where it is not here."""
    if checkpoint is None:
        return None
    source = official_url(checkpoint) if checkpoint.startswith(SCHEME) else checkpoint
    url = source.partition('#')[0]
    file = cached_file(url) if url.startswith(('http://', 'https://')) else Path(source).expanduser()
    return file_sha256(file) if file.is_file() else None


def require_source(checkpoint: str) -> None:
    """Raise CheckpointError where `checkpoint` is a local file that does not exist, or no known ``fasternet://NAME``."""
    if checkpoint.startswith(SCHEME):
        official_url(checkpoint)
    elif '://' not in checkpoint:
        require_file(checkpoint)
