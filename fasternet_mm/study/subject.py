"""A network to look into, with its weights, and how it takes pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ..checkpoint import load_strict, require_source
from ..engine.runner import build_model, load_config
from ..errors import CheckpointError, UserError, did_you_mean
from ..report import require_timm
from .images import Preprocessing


@dataclass(eq=False)
class Subject:
    """Hold what is studied; any network can be, without the command line.

    Attributes:
        name (str): In tables and pictures.
        model (nn.Module): In evaluation mode, fp32.
        prepare (Preprocessing): How it takes pictures.
        run (Callable): Takes a batch (N, 3, H, W) through the layers.
        checkpoint (str | None): File, URL or name of the weights.
        labels (list[str]): What belongs beside every number.
        cfg (Config | None): Of mm.
        classes (Sequence[str] | None): Names of what it tells apart, where they are known.
    """

    name: str
    model: nn.Module
    prepare: Preprocessing
    run: Callable[[Tensor], object]
    checkpoint: str | None = None
    labels: list[str] = field(default_factory=list)
    cfg: Config | None = None
    classes: Sequence[str] | None = None


def build(
    source: str,
    checkpoint: str | None = None,
    random_weights: bool = False,
    size: int | None = None,
    cfg_options: dict | None = None,
) -> Subject:
    """Build the network that a command line names, with its weights.

    Args:
        source (str): Config of mmdet or mmpretrain, ``timm://NAME`` or ``torchvision://NAME``.
        checkpoint (str, optional): File, URL or name of weights that fill the network. Without it those that timm and
            torchvision publish are taken, from the cache or from the network.
        random_weights (bool): Whether to leave the weights random, which a label then says.
        size (int, optional): Side of the input in pixels, instead of the network's own.
        cfg_options (dict, optional): ``--cfg-options`` of a config.

    Raises:
        UserError: If there is no such network, or no weights are given for a config.
        CheckpointError: If the weights cannot be had, or do not fit.
    """
    if random_weights and checkpoint:
        raise UserError(f'--random-weights and the checkpoint {checkpoint} exclude each other')
    if size is not None and size < 32:
        raise UserError(f'--size must be at least 32, but is {size}')
    if checkpoint:
        require_source(checkpoint)
    scheme, _, name = source.partition('://')
    if source.endswith('.py'):
        subject = _from_config(source, checkpoint, random_weights, cfg_options)
    elif scheme in _ZOOS and name:
        subject = _ZOOS[scheme](source, name, checkpoint, random_weights)
    else:
        raise UserError(f'{source}: expected a config that ends in .py, timm://NAME or torchvision://NAME')
    if random_weights:
        subject.labels.append('random weights')
    return subject if size is None else replace(subject, prepare=subject.prepare.resized(size))


def _from_config(source: str, checkpoint: str | None, random_weights: bool, cfg_options: dict | None) -> Subject:
    cfg = load_config(source, cfg_options)
    if not (checkpoint or random_weights):
        raise UserError(f'{source}: give a checkpoint after it, or --random-weights')
    try:
        model = build_model(cfg, checkpoint)
    except UserError as error:
        raise type(error)(f'{source}: {error}') from error
    name = cfg.filename.rpartition('/')[2].removesuffix('.py')
    return Subject(name, model, _of_config(cfg), model.extract_feat, checkpoint, cfg=cfg, classes=_classes_of(cfg))


def _classes_of(cfg: Config) -> Sequence[str] | None:
    """Return the names of the classes of a config's test data, whose class may know them, or None."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        kind = registry.get(dataset.get('type') or '')
    known = dataset.get('metainfo') or getattr(kind, 'METAINFO', {})
    return known.get('classes')


def _of_config(cfg: Config) -> Preprocessing:
    """Return how a config's data preprocessor and test pipeline take pictures."""
    how = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    bgr = not (how.get('to_rgb') or how.get('bgr_to_rgb'))
    mean, std = how.get('mean') or (0, 0, 0), how.get('std') or (1, 1, 1)
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    steps = {step['type']: step for step in loader.get('dataset', {}).get('pipeline', [])}
    size = steps.get('CenterCrop', {}).get('crop_size', 224)
    size = size if isinstance(size, int) else size[0]
    shorter, way = steps.get('ResizeEdge', {}).get('scale', round(size * 256 / 224)), 'interpolation'
    return Preprocessing(size, shorter, mean, std, bgr, steps.get('ResizeEdge', {}).get(way) == 'bicubic')


def _from_timm(source: str, name: str, checkpoint: str | None, random_weights: bool) -> Subject:
    require_timm(source)
    import timm

    model = timm.create_model(name, pretrained=False)
    settings = timm.data.resolve_model_data_config(model)
    where = model.pretrained_cfg.get('hf_hub_id') or model.pretrained_cfg.get('url')
    if checkpoint:
        _load(model, checkpoint)
    elif not random_weights:
        if not where:
            raise CheckpointError(f'{source}: timm publishes no weights; give a file after it, or --random-weights')
        try:
            model = timm.create_model(name, pretrained=True)
        except Exception as error:  # of one of three libraries that download
            page = f'https://huggingface.co/{where}' if '://' not in where else where
            raise CheckpointError(
                f'{source}: its weights cannot be had from {page} ({_first_line(error)}); download model.safetensors '
                'or pytorch_model.bin there on another machine, and give that file after the name, or --random-weights'
            ) from error
        checkpoint = where
    size = settings['input_size'][-1]
    mean, std = ([255 * value for value in settings[what]] for what in ('mean', 'std'))
    prepare = Preprocessing(
        size, int(size / settings['crop_pct']), mean, std, bicubic=settings['interpolation'] == 'bicubic'
    )
    return Subject(f'timm {name}', model.eval(), prepare, model, checkpoint)


def _from_torchvision(source: str, name: str, checkpoint: str | None, random_weights: bool) -> Subject:
    from torchvision.models import get_model, get_model_weights, list_models

    if name not in list_models():
        raise UserError(f'{source}: torchvision has no model {name!r}{did_you_mean(name, list_models())}')
    published = get_model_weights(name).DEFAULT
    how = published.transforms()
    if not hasattr(how, 'crop_size'):
        raise UserError(f'{source} is no classifier; those are studied, and configs of mmdet')
    model = get_model(name, weights=None).eval()
    if not (checkpoint or random_weights):
        checkpoint = published.url
    if checkpoint:
        try:
            _load(model, checkpoint)
        except CheckpointError as error:
            if checkpoint != published.url:
                raise
            raise CheckpointError(
                f'{source}: its weights cannot be had ({error.__cause__ or error}); download {published.url} on '
                'another machine, and give that file after the name, or --random-weights'
            ) from error
    mean, std = ([255 * value for value in values] for values in (how.mean, how.std))
    prepare = Preprocessing(
        how.crop_size[0], how.resize_size[0], mean, std, bicubic=how.interpolation.value == 'bicubic'
    )
    classes = published.meta.get('categories')
    return Subject(f'torchvision {name}', model, prepare, model, checkpoint, classes=classes)


_ZOOS = dict(timm=_from_timm, torchvision=_from_torchvision)


def _load(model: nn.Module, checkpoint: str) -> None:
    load_strict(model, CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.splitlines()[0]
