"""The data sets of a config, each with what it reads: an annotation file, or what mmdet or mmpretrain makes of it."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope

from ..engine.checks.annotations import PARTS, fault_of_parts, named, parse
from ..engine.checks.classes import check_classes, fault_of_categories
from ..engine.checks.images import Decoder, decoder_of, is_remote
from ..engine.explaining import explained, nodes
from ..engine.preflight import check_dataset
from ..errors import UserError
from .coco import Reading
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
    source = Source(leaf.places, leaf.role)
    role, place, settings = leaf.role, source.place, leaf.settings
    scope = cfg.get('default_scope', 'mmengine')
    try:
        with DATASETS.switch_scope_and_registry(scope) as registry:
            check_dataset(settings, place, registry)
    except UserError as error:
        source.find('path', str(error))
        return source
    try:
        with (
            DefaultScope.overwrite_default_scope(scope),
            explained(cfg, 'test' if role == 'test' else 'train', place=place),
        ):
            source.dataset = DATASETS.build({**settings, 'lazy_init': True})
    except UserError as error:
        source.find('config', str(error))
        return source
    transforms = source.dataset.pipeline.transforms
    metrics = metrics_of(cfg, role)
    coco = [node for node in metrics if str(node['type']).rpartition('.')[2] == 'CocoMetric']
    masks = any(getattr(transform, 'with_mask', False) for transform in transforms)
    masks |= any('segm' in np.atleast_1d(node.get('metric', 'bbox')) for node in coco)
    source.reading = Reading(place, source.classes, masks, bool(coco), role == 'train' or bool(metrics))
    source.decoder = decoder_of(source.dataset.pipeline)
    if getattr(type(source.dataset), 'load_data_list', None) is CocoDataset.load_data_list:
        _read_coco(source)
    else:
        _read_other(source, cfg)
    return source


def _read_coco(source: Source) -> None:
    file = source.ann_file
    if is_remote(file):
        source.find('unchecked', f'{file} is remote')
        return
    content, fault = parse(Path(file).read_bytes())
    if not source.reading.annotated:
        content.setdefault('annotations', [])
    if fault := fault or fault_of_parts(content):
        source.find('file', f'{named(file, source.place)} {fault}')
        return
    source.content = content
    prefix = source.dataset.data_prefix.get('img', '')
    source.paths = [os.path.join(prefix, str(image.get('file_name', '')) if isinstance(image, dict) else '')
                    for image in content['images']]  # fmt: skip
    classes = source.classes
    known = {
        one['id']: one['name']
        for one in content['categories']
        if isinstance(one, dict) and {'id', 'name'} <= one.keys()
    }
    cat_ids = [number for number, name in known.items() if name in classes]
    if fault := fault_of_categories(classes, known, cat_ids, file, source.place):
        source.find('classes', fault)


def _read_other(source: Source, cfg: Config) -> None:
    """Let mmdet or mmpretrain read another format, and take what is left."""
    dataset, place = source.dataset, source.place
    try:
        with (
            DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')),
            explained(cfg, 'train', place=place),
        ):
            dataset.full_init()
            infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        check_classes(dataset, place)
    except UserError as error:
        source.find('file', str(error))
        return
    source.reading.classes = source.classes
    source.paths = [str(info.get('img_path', '')) for info in infos]
    if all('gt_label' in info for info in infos):
        source.labels = [np.ravel(info['gt_label']) for info in infos]
        return
    kind = type(dataset).__name__
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
        content['images'].append(dict(id=index, file_name=str(info.get('img_path', '')), **sizes))
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
