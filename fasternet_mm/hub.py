"""FasterNet's classifiers in mmpretrain's model zoo: ``list_models``, ``get_model``, ``inference_model``."""

from pathlib import Path

from mmpretrain.apis import ModelHub

_PACKAGE = Path(__file__).parent


def config_root() -> Path:
    """Return the folder of the configs: within the package of an installed wheel, beside the package in a clone."""
    root = _PACKAGE / '.mim' if (_PACKAGE / '.mim').is_dir() else _PACKAGE.parent
    return root / 'configs'


class _Index(ModelHub):
    """Our models alone, so that all of them are read before any is registered."""

    _models_dict = {}


def register_models() -> list[str]:
    """Make mmpretrain know the models in ``configs/metafile.yml``, and return the names that it did not know."""
    metafile = config_root() / 'metafile.yml'
    # a package folder that was copied alone has no configs, and works all the same
    if metafile.is_file() and not _Index._models_dict:
        _Index.register_model_index(metafile, config_prefix=config_root().parent)
    new = {name: model for name, model in _Index._models_dict.items() if not ModelHub.has(name)}
    ModelHub._models_dict.update(new)
    return list(new)


def forget_models(names: list[str]) -> None:
    """Take the models `names`, which :func:`register_models` returned, out of mmpretrain's model zoo."""
    for name in names:
        ModelHub._models_dict.pop(name, None)
