"""The data sets of a config, each with what it reads: an annotation file, or what mmdet or mmpretrain makes of it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope

from ..engine.checks.annotations import PARTS, fault_of_parts, named, parse
from ..engine.checks.classes import check_classes, classes_of, fault_of_categories, fault_of_images
from ..engine.checks.images import Decoder, decoder_of
from ..engine.explaining import explained, nodes
from ..engine.preflight import check_dataset, check_evaluators
from ..errors import UserError
from .coco import Reading, ids_of
from .findings import Finding

ROLES = ('train', 'val', 'test')


@dataclass
class Source:
    """One data set of a config, without its wrappers.

    Attributes:
        places (list[str]): Its keys in the config; several where validation and test are one.
        role (str): 'train', 'val' or 'test'; the first of them.
        dataset (BaseDataset): As the config builds it, without its annotations unless `converted`.
        reading (Reading): What is read of its file.
        content (dict): In COCO's format; of other formats what is left of it by mmdet or mmpretrain.
        converted (bool): Whether `content` was made of another format.
        labels (list[np.ndarray]): The labels of each image, where it is for classification.
        paths (list[str]): The path of each image.
        decoder (Decoder): How its pipeline decodes them.
        is_local (bool): Whether they are files here, as far as the config says.
        findings (list[Finding]): What is wrong with it.
    """

    places: list[str]
    role: str
    dataset: BaseDataset | None = None
    reading: Reading | None = None
    content: dict | None = None
    converted: bool = False
    labels: list[np.ndarray] | None = None
    paths: list[str] = field(default_factory=list)
    decoder: Decoder = Decoder()
    is_local: bool = True
    findings: list[Finding] = field(default_factory=list)

    @property
    def place(self) -> str:
        return self.places[0]

    @property
    def ann_file(self) -> str:
        return self.dataset.ann_file if self.dataset is not None else ''

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.dataset.metainfo.get('classes') or ()) if self.dataset is not None else ()

    def find(self, kind: str, told: str) -> None:
        """Note a finding about the whole set."""
        self.findings.append(Finding(kind, self.place, 1, [told]))


@dataclass
class Leaf:
    """The settings of a data set without its wrappers; `places` and `role` as in :class:`Source`."""

    places: list[str]
    role: str
    settings: Mapping


def leaves_of(cfg: Config) -> list[Leaf]:
    """Return the data sets that a config's data loaders name, each once.

    Raises:
        UserError: If there is no data loader.
    """
    found, known = [], []
    for role in ROLES:
        settings = (cfg.get(f'{role}_dataloader') or {}).get('dataset')
        for place, leaf in _leaves(settings, f'{role}_dataloader.dataset') if settings else ():
            plain = {key: value for key, value in leaf.items() if key not in ('pipeline', 'test_mode')}
            plain = (plain, metrics_of(cfg, role))
            if plain in known:
                found[known.index(plain)].places.append(place)
                continue
            known.append(plain)
            found.append(Leaf([place], role, leaf))
    if not found:
        raise UserError(f'the config has none of {", ".join(f"{role}_dataloader" for role in ROLES)}')
    return found


def sources_of(cfg: Config) -> list[Source]:
    """Read the data sets of a config; what cannot be read is among their findings."""
    return [_read(cfg, leaf) for leaf in leaves_of(cfg)]


def _leaves(settings, place: str) -> Iterator[tuple[str, Mapping]]:
    """Yield the settings inside the wrappers (RepeatDataset, ConcatDataset, ...), each with its key in the config."""
    if not isinstance(settings, Mapping):
        raise UserError(f'{place} must be a dict, but is {settings!r}')
    if isinstance(settings.get('datasets'), (list, tuple)):
        for index, child in enumerate(settings['datasets']):
            yield from _leaves(child, f'{place}.datasets.{index}')
    elif isinstance(settings.get('dataset'), Mapping):
        yield from _leaves(settings['dataset'], f'{place}.dataset')
    else:
        yield place, settings


def metrics_of(cfg: Config, role: str) -> list[Mapping]:
    """Return the settings of the metrics that evaluate a set; none for a set without public annotations."""
    found = [node for _, node in nodes({'': cfg.get(f'{role}_evaluator')}) if isinstance(node, Mapping)]
    return [node for node in found if 'type' in node and not node.get('format_only')]


def _read(cfg: Config, leaf: Leaf) -> Source:
    source, settings = Source(leaf.places, leaf.role), leaf.settings
    place, evaluator = source.place, f'{leaf.role}_evaluator'
    source.is_local = (settings.get('backend_args') or {}).get('backend', 'local') == 'local'
    try:
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope', 'mmengine')) as registry:
            check_dataset(settings, place, registry)
            check_evaluators(cfg.get(evaluator), evaluator)
            kind = settings.get('type')
            kind = registry.get(kind) if isinstance(kind, str) else kind
    except UserError as error:
        source.find('path', str(error))
        return source
    if not source.is_local:
        source.find('unchecked', f'the images of {place}, which its backend_args fetch')
    if isinstance(kind, type) and not issubclass(kind, BaseDataset):
        source.find('unchecked', f'{place} is a {kind.__name__}, which is none of mmengine')
        return source
    try:
        with of_config(cfg, place):
            source.dataset = DATASETS.build({**settings, 'lazy_init': True})
        classes_of(source.dataset, place)
    except UserError as error:
        source.find('config', str(error))
        return source
    metrics = metrics_of(cfg, leaf.role)
    coco = [node for node in metrics if str(node['type']).rpartition('.')[2] == 'CocoMetric']
    masks = any(getattr(transform, 'with_mask', False) for transform in source.dataset.pipeline.transforms)
    masks |= any('segm' in np.atleast_1d(node.get('metric', 'bbox')) for node in coco)
    source.reading = Reading(place, source.classes, masks, bool(coco), leaf.role == 'train' or bool(metrics))
    source.decoder = decoder_of(source.dataset.pipeline)
    if kind.load_data_list is CocoDataset.load_data_list:
        _read_coco(source)
        if source.content is not None:
            _compare(source, [node['ann_file'] for node in coco if node.get('ann_file')], evaluator)
    else:
        _read_other(source, cfg)
    return source


@contextmanager
def of_config(cfg: Config, place: str) -> Iterator[None]:
    """Build in the scope of a config; what does not work is a UserError of one line."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        with explained(cfg, 'test' if place.startswith('test') else 'train', place=place):
            yield


def _read_coco(source: Source) -> None:
    file = source.ann_file
    if not os.path.isfile(file):  # which is the file backend's affair
        source.find('unchecked', f'{file} is not a file here')
        return
    content, fault = parse(Path(file).read_bytes())
    if not source.reading.annotated:
        content.setdefault('annotations', [])
    if fault := fault or fault_of_parts(content):
        source.find('file', f'{named(file, source.place)} {fault}')
        return
    source.content = content
    prefix = source.dataset.data_prefix.get('img', '')
    names = (image.get('file_name', '') if isinstance(image, dict) else '' for image in content['images'])
    source.paths = [os.path.join(prefix, str(name)) for name in names]
    pairs = zip(ids_of(content['categories']), content['categories'])
    known = {number: one['name'] for number, one in pairs if number is not None and 'name' in one}
    cat_ids = [number for number, name in known.items() if name in source.classes]
    if fault := fault_of_categories(source.classes, known, cat_ids, file, source.place):
        source.find('classes', fault)


def _compare(source: Source, files: list[str], evaluator: str) -> None:
    """Compare the images of a set with those of its metrics' files, where these are others."""
    for file in files:
        if os.path.isfile(file) and not os.path.samefile(file, source.ann_file):
            content, fault = parse(Path(file).read_bytes())
            images, told = set(ids_of(source.content['images'])), named(file, evaluator)
            fault = fault_of_parts(content) if not fault else fault
            fault = (
                f'{told} {fault}' if fault else fault_of_images(images, ids_of(content['images']), told, source.place)
            )
            if fault:
                source.find('file', fault)


def _read_other(source: Source, cfg: Config) -> None:
    """Let mmdet or mmpretrain read another format, and take what is left."""
    dataset, place = source.dataset, source.place
    try:
        with of_config(cfg, place):
            dataset.full_init()
            infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        check_classes(dataset, place)
    except UserError as error:
        source.find('file', str(error))
        return
    kind = type(dataset).__name__
    if not all(isinstance(info.get('img_path'), str) for info in infos):
        source.find('unchecked', f'{place} is a {kind}: its samples are not one image each')
        return
    source.reading.classes = source.classes
    source.paths = [info['img_path'] for info in infos]
    if all(isinstance(info.get('gt_label'), (int, np.integer, list, np.ndarray)) for info in infos):
        source.labels = [np.ravel(info['gt_label']) for info in infos]
        return
    if not all('instances' in info for info in infos):
        source.find('unchecked', f'{place} is a {kind}: its images are looked at, and nothing else')
        return
    source.find('unchecked', f'{place} is a {kind}: what mmdet leaves out of its files as it reads them is not seen')
    source.content, source.converted = _as_coco(infos, source.classes), True
    source.reading.masks = False


def _as_coco(infos: list[dict], classes: tuple[str, ...]) -> dict:
    content = {part: [] for part in PARTS}
    content['categories'] = [dict(id=index, name=name) for index, name in enumerate(classes)]
    for index, info in enumerate(infos):
        sizes = {key: info[key] for key in ('width', 'height') if key in info}
        content['images'].append(dict(id=index, file_name=info['img_path'], **sizes))
        for instance in info['instances']:
            x, y, right, bottom = map(float, instance['bbox'])
            content['annotations'].append(
                dict(
                    id=len(content['annotations']),
                    image_id=index,
                    category_id=int(instance['bbox_label']),
                    bbox=[x, y, right - x, bottom - y],
                    area=(right - x) * (bottom - y),
                    iscrowd=int(instance.get('ignore_flag', 0)),
                )
            )
    return content
