"""FasterNet's classifiers in mmpretrain's model zoo: ``list_models``, ``get_model``, ``inference_model``."""

from pathlib import Path

from mmpretrain.apis import ModelHub

_PACKAGE = Path(__file__).parent


def config_root() -> Path:
    """The folder of the configs: within the package of an installed wheel, beside the package in a clone."""
    root = _PACKAGE / '.mim' if (_PACKAGE / '.mim').is_dir() else _PACKAGE.parent
    return root / 'configs'


def register_models() -> None:
    """Make mmpretrain know the names in ``configs/metafile.yml``. A second call changes nothing."""
    metafile = config_root() / 'metafile.yml'
    # a package folder that was copied alone has no configs, and works all the same
    if metafile.is_file() and not ModelHub.has('fasternet-t0_8xb512_in1k'):
        ModelHub.register_model_index(metafile, config_prefix=config_root().parent)
