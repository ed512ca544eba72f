"""What a backbone gives and what a neck makes of it, found by running them without data."""

import copy
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import mmdet
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..engine.explaining import cause, innermost, nodes
from ..errors import UserError
from .segmentors import backbone_of_side, of_side, side_of

SIDE = 512  # pixels of the image that is tried
WORDS = ('car', 'bench')  # what the random language model knows
_LANGUAGE_KEYS = {'name', 'lang_model_name'}
Result = TypeVar('Result')


class Map(NamedTuple):
    """One output of a backbone: channels, and stride in pixels of the image."""

    channels: int
    stride: int

    def __str__(self) -> str:
        return f'{self.channels} channels at stride {self.stride}'


def told(maps: Sequence[Map]) -> str:
    """Return `maps` in words."""
    return ', '.join(map(str, maps))


def build(settings: ConfigDict, scope: str) -> nn.Module:
    """Build a part of a model as a runner of `scope` would, but with nothing that one process alone cannot have.

    `settings` are not changed. Nothing is downloaded: no module has a checkpoint to start from, and language models
    are small random ones. BN stands for synchronised BN.
    """
    settings = copy.deepcopy(settings)
    if 'teacher_ckpt' in settings:
        settings.teacher_ckpt = None
    if isinstance(settings.get('teacher_config'), str):
        settings.teacher_config = ConfigDict(model=Config.fromfile(installed_config(settings.teacher_config)).model)
    with _language_model(settings) as folder, DefaultScope.overwrite_default_scope(scope):
        for _, node in [('', settings), *nodes(settings)]:
            if isinstance(node, dict):
                if node.get('type') in ('SyncBN', 'MMSyncBN'):
                    node['type'] = 'BN'
                if isinstance(node.get('pretrained'), (bool, str)):  # the one is timm's, the other of mmdet 2's time
                    node['pretrained'] = False if isinstance(node['pretrained'], bool) else None
                if isinstance(node.get('init_cfg'), dict) and 'checkpoint' in node['init_cfg']:
                    node['init_cfg'] = None
                if isinstance(node.get('checkpoint'), str):  # of a tracker's network that links tracks
                    node['checkpoint'] = None
                for key in _LANGUAGE_KEYS & node.keys() if folder else ():
                    if node[key] == settings.language_model.name:
                        node[key] = folder
        return MODELS.build(settings)


def installed_config(path: str) -> str:
    """Return `path`, or the file of mmdet's own configs that it means where it is relative to a checkout of mmdet."""
    installed = Path(mmdet.__file__).parent / '.mim' / path
    return str(installed) if not Path(path).is_file() and installed.is_file() else path


@contextmanager
def _language_model(model: ConfigDict) -> Iterator[str | None]:
    """Give the folder of a small random BERT for a detector that takes text, which else would download one."""
    if 'language_model' not in model or importlib.util.find_spec('transformers') is None:
        yield None
        return
    from transformers import BertConfig, BertModel

    with TemporaryDirectory() as folder:
        tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?', *WORDS]
        Path(folder, 'vocab.txt').write_text('\n'.join(tokens))
        with torch.device('cpu'):
            bert = BertModel(BertConfig(vocab_size=len(tokens), num_hidden_layers=1), add_pooling_layer=False)
        bert.save_pretrained(folder)
        yield folder


@torch.no_grad()
def without_weights(function: Callable[..., Result], *args) -> Result:
    """Call `function` with tensors that have shapes alone, or with real ones where that does not work.

    Some constructors need numbers, such as those that draw up a stochastic depth with torch.
    """
    try:
        with torch.device('meta'):
            return function(*args)
    except Exception:
        return function(*args)


def maps_of(settings: ConfigDict, scope: str, training: bool = False) -> list[Map]:
    """Return the outputs of a backbone.

    Args:
        settings (ConfigDict): The backbone's.
        scope (str): 'mmdet', 'mmpretrain' or 'mmseg'.
        training (bool): Its mode. Defaults to False.

    Raises:
        UserError: If an output is no map, (N, C, H, W), with a stride that divides the image.
    """
    if scope == 'mmseg':
        settings = backbone_of_side(settings, SIDE)
    outputs = without_weights(_run_backbone, settings, scope, training)
    if not all(isinstance(x, Tensor) and x.dim() == 4 and _stride(x.shape[2]) for x in outputs):
        found = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in outputs]
        raise UserError(
            f'{settings.type} gives {found} for an image of {SIDE} x {SIDE}, but FasterNet gives maps, (N, C, H, W): '
            'what takes them cannot be met'
        )
    return [Map(x.shape[1], _stride(x.shape[2])) for x in outputs]


def _stride(pixels: int) -> int | None:
    """Return the stride of a map that has so many pixels, None if there is none; ICNet's may have one more."""
    return next((SIDE // each for each in (pixels, pixels - 1) if each and SIDE % each == 0), None)


def _run_backbone(settings: ConfigDict, scope: str, training: bool) -> Sequence[Tensor]:
    backbone = build(settings, scope)
    backbone.train(training)  # which gives nothing back in most backbones of mm
    outputs = backbone(torch.zeros(2 if training else 1, 3, SIDE, SIDE))  # BN cannot train on one pixel
    return [outputs] if isinstance(outputs, Tensor) else outputs


def shapes_after(neck: ConfigDict, scope: str, maps: Sequence[Map]) -> list[tuple[int, ...]]:
    """Return the shapes of what a neck makes of `maps`."""
    return without_weights(_run_neck, neck, scope, maps)


def _run_neck(neck: ConfigDict, scope: str, maps: Sequence[Map]) -> list[tuple[int, ...]]:
    module = build(neck, scope)
    module.eval()
    return _shapes(module(tuple(torch.zeros(1, channels, SIDE // stride, SIDE // stride) for channels, stride in maps)))


def build_whole(cfg: Config, scope: str) -> nn.Module:
    """Build the model of a config, as :func:`build` does."""
    settings = copy.deepcopy(cfg.model)
    if scope == 'mmpretrain' and cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    return build(settings, scope)


def outputs_of(cfg: Config, scope: str) -> list[tuple[int, ...]]:
    """Return the shapes of what the heads of a config's model give for one image, or of a video's, for one frame.

    Raises:
        UserError: If a module does not take its input; it is named.
    """
    cfg = copy.deepcopy(cfg)
    if 'rpn' in (cfg.model.get('test_cfg') or {}):
        cfg.model.test_cfg.rpn.max_per_img = 10  # proposals; a thousand take a minute
    height = scope == 'mmseg' and side_of(cfg.model) or 256
    model = build_whole(of_side(cfg, height), scope)
    model.eval()
    of_people = scope == 'mmdet' and 'head' in cfg.model  # re-identification, whose pictures are narrow
    image = torch.zeros(1, 3, height, 128 if of_people else height)
    side = tuple(image.shape[2:])
    info = dict(img_shape=side, ori_shape=side, pad_shape=side, batch_input_shape=side, scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=info)] if scope == 'mmdet' and not of_people else None
    try:
        if scope == 'mmdet' and 'track_head' in cfg.model:  # a model that has no plain forward pass
            return _shapes(model.track_head(model.backbone(image), samples))
        if scope == 'mmseg':  # the logits in the size of the image: mode='tensor' leaves heads without their samples
            return _shapes(model.encode_decode(image, [info]))
        return _shapes(model(image, samples, mode='tensor'))
    except Exception as error:
        names = {module: name for name, module in model.named_modules()}
        place = f'model.{names.get(innermost(error, nn.Module), "")}'.rstrip('.')
        raise UserError(f'{place}: {cause(error)}') from error


def _shapes(outputs) -> list[tuple[int, ...]]:
    if isinstance(outputs, Tensor):
        return [tuple(outputs.shape)]
    values = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, (list, tuple)) else ()
    return [shape for value in values for shape in _shapes(value)]
