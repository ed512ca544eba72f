"""FasterNet's classifiers in mmpretrain's model zoo: ``list_models``, ``get_model``, ``inference_model``."""

from pathlib import Path

from mmpretrain.apis import ModelHub

_PACKAGE = Path(__file__).parent


def register_models() -> None:
    """Make mmpretrain know the names in ``configs/metafile.yml``. A second call changes nothing."""
    # an installed wheel has the configs within the package, a clone beside it
    root = _PACKAGE / '.mim' if (_PACKAGE / '.mim').is_dir() else _PACKAGE.parent
    if not ModelHub.has('fasternet-t0_8xb512_in1k'):
        ModelHub.register_model_index(root / 'configs' / 'metafile.yml', config_prefix=root)
