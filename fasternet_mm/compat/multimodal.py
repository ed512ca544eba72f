"""Let mmpretrain import beside a transformers that its multimodal models cannot use."""

from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.metadata import PackageNotFoundError, version

from mmengine.utils import digit_version


class MultimodalFinder(MetaPathFinder):
    """Lets mmpretrain take transformers >= 5 for missing.

    mmpretrain 1.2 asks for transformers >= 4.28 alone, and its import fails beside version 5, which dropped functions
    that it uses. Taken for missing, its multimodal models are placeholders that raise when they are built. It belongs
    at the START of ``sys.meta_path``, before mmpretrain is first imported.
    """

    def find_spec(self, fullname, path=None, target=None):
        """Return the spec of mmpretrain's own module of dependencies, to be corrected, and None for other names."""
        if fullname != 'mmpretrain.utils.dependency' or _transformers_fit():
            return None
        spec = PathFinder.find_spec(fullname, path)
        spec.loader = _WithoutMultimodal(fullname, spec.origin)
        return spec


class _WithoutMultimodal(SourceFileLoader):
    def exec_module(self, module) -> None:
        super().exec_module(module)
        module.WITH_MULTIMODAL = False


def _transformers_fit() -> bool:
    try:
        return digit_version(version('transformers')) < digit_version('5')
    except PackageNotFoundError:
        return True  # which mmpretrain sees itself
