"""Write annotation files without what is wrong in them: entries are dropped, clipped or completed, and counted."""

import copy
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from mmengine.config import Config

from ..engine.checks.annotations import PARTS, entry_faults
from ..engine.checks.images import ImageFile
from ..engine.explaining import nodes
from ..errors import UserError
from ..files import AtomicLocalBackend, require_writable
from .coco import Reading, check_content, ids_of, is_polygon
from .examination import Diagnosis, judge
from .findings import KINDS, Finding
from .sources import Source, leaves_of

_ROUNDS = 9  # a mended entry may have another fault: each round takes one away


@dataclass
class Mended:
    """A new annotation file.

    Attributes:
        source (Source): The data set that it is for.
        path (Path): The file.
        counts (Counter): By the kind of finding, how many entries were mended; 'with_image' are objects that went with
            their image.
    """

    source: Source
    path: Path
    counts: Counter


def plan_outputs(cfg: Config, folder: Path) -> dict[str, Path]:
    """Return the new annotation file for each data set of a config, by its key.

    Raises:
        UserError: If one of them exists, or the folder cannot be written.
    """
    leaves = [leaf for leaf in leaves_of(cfg) if leaf.settings.get('ann_file')]
    names = Counter(Path(leaf.settings['ann_file']).name for leaf in leaves)
    outputs = {}
    for leaf in leaves:
        place, name = leaf.places[0], Path(leaf.settings['ann_file']).name
        prefix = '' if names[name] == 1 else place.replace('_dataloader.dataset', '').replace('.', '_') + '_'
        outputs[place] = folder / f'{prefix}{name}'
    if existing := [path for path in outputs.values() if path.exists()]:
        raise UserError(f'--fix {folder}: {existing[0]} exists, and no file is written over; name another folder')
    require_writable(folder, f'--fix {folder}')
    return outputs


def fix(cfg: Config, diagnosis: Diagnosis, outputs: dict[str, Path]) -> tuple[list[Mended], Diagnosis]:
    """Write the annotation files of all data sets in which something can be mended.

    Args:
        cfg (Config): The config that was examined.
        diagnosis (Diagnosis): What was found.
        outputs (dict[str, Path]): Of :func:`plan_outputs`.

    Returns:
        tuple: The new files, and what is found with them in place of the old ones.
    """
    done, sources = [], []
    for source in diagnosis.sources:
        findings = [one for one in diagnosis.findings if one.place == source.place and KINDS[one.kind].mend]
        if source.content is None or source.converted or not findings:
            sources.append(source)
            continue
        files = [diagnosis.files.get((path, source.decoder)) for path in source.paths]
        content, kept, counts = mend(source.content, findings, files, source.reading)
        path = outputs[source.place]
        AtomicLocalBackend().put_text(json.dumps(content), path)
        sources.append(replace(source, content=content, paths=[source.paths[i] for i in kept], findings=[]))
        done.append(Mended(source, path, counts))
    return done, judge(cfg, sources, diagnosis.files)


def settings_for(cfg: Config, mended: Sequence[Mended]) -> dict[str, str]:
    """Return the settings by which a config uses new annotation files, as ``--cfg-options`` take them."""
    settings = {}
    for one in mended:
        new, old = os.path.abspath(one.path), os.path.abspath(one.source.ann_file)
        for place in one.source.places:
            settings[f'{place}.ann_file'] = new
            role = place.partition('_')[0]
            for path, node in nodes({f'{role}_evaluator': cfg.get(f'{role}_evaluator')}):
                if isinstance(node, Mapping) and os.path.abspath(str(node.get('ann_file'))) == old:
                    settings[f'{path}.ann_file'] = new
    return settings


def mend(
    content: dict, findings: Sequence[Finding], files: Sequence[ImageFile | None], reading: Reading
) -> tuple[dict, list[int], Counter]:
    """Return a copy of a file's content without what can be mended.

    Args:
        content (dict): In COCO's format.
        findings (Sequence[Finding]): About it.
        files (Sequence[ImageFile | None]): What is known of the file of each image.
        reading (Reading): What the config reads of it.

    Returns:
        tuple: The content, the former positions of the images that are left, and how many entries of each kind of
        finding were mended.
    """
    kept, counts = list(range(len(content['images']))), Counter()
    content = {**content, **{part: copy.deepcopy(content[part]) for part in PARTS}}
    for _ in range(_ROUNDS):
        todo = [finding for finding in findings if KINDS[finding.kind].mend and finding.part]
        if not todo:
            break
        one = _Round(content, [files[i] for i in kept])
        kept = [kept[i] for i in one.mend(todo)]
        counts += one.counts
        findings, _ = check_content(content, reading, [files[i] for i in kept])
    return content, kept, counts


class _Round:
    """Mends each finding once, in place. A method with the name of a kind returns whether the entry stays."""

    def __init__(self, content: dict, files: Sequence[ImageFile | None]) -> None:
        self.content, self.files = content, files
        self.dropped = {part: set() for part in PARTS}
        self.counts = Counter()
        self.joined = {part: {} for part in ('images', 'categories')}  # ids, and those that take their place
        self.places = {}
        numbers = (number for number in ids_of(content['annotations']) if isinstance(number, int))
        self.new_ids = count(max(numbers, default=0) + 1)

    def mend(self, findings: Sequence[Finding]) -> list[int]:
        """Return the positions of the images that are left."""
        for finding in findings:
            change = getattr(self, f'_{finding.kind}', None)
            for position in set(finding.positions) - self.dropped[finding.part]:
                if change is None or not change(self.content[finding.part][position], position):
                    self.dropped[finding.part].add(position)
                self.counts[finding.kind] += 1
        self._follow()
        left = [i for i in range(len(self.content['images'])) if i not in self.dropped['images']]
        for part, positions in self.dropped.items():
            self.content[part] = [entry for i, entry in enumerate(self.content[part]) if i not in positions]
        return left

    def _follow(self) -> None:
        """Let objects go with their image or category, and drop those that are there twice once images are joined."""
        ids = ids_of(self.content['images'])
        gone = {ids[i] for i in self.dropped['images']} - self.joined['images'].keys()
        gone -= {number for i, number in enumerate(ids) if i not in self.dropped['images']}
        several, seen = set(self.joined['images'].values()), set()
        for position, entry in enumerate(self.content['annotations']):
            if position in self.dropped['annotations'] or not isinstance(entry, dict):
                continue
            if entry.get('image_id') in gone:
                self.dropped['annotations'].add(position)
                self.counts['with_image'] += 1
                continue
            for key, part in (('image_id', 'images'), ('category_id', 'categories')):
                entry[key] = self.joined[part].get(entry[key], entry[key])
            same = (entry['image_id'], entry['category_id'], str(entry['bbox']))
            if entry['image_id'] in several and same in seen:
                self.dropped['annotations'].add(position)
            seen.add(same)

    def _first(self, part: str, key: str, value) -> tuple[int, dict]:
        """Return the position of the first entry with this value, and the entry."""
        if (part, key) not in self.places:
            places = self.places[part, key] = {}
            for position, entry in enumerate(self.content[part]):
                if isinstance(entry, dict) and isinstance(entry.get(key), (int, str)):
                    places.setdefault(entry[key], position)
        position = self.places[part, key][value]
        return position, self.content[part][position]

    def _size_unsaid(self, image: dict, position: int) -> bool:
        size = self.files[position].size if self.files[position] else None
        if size:
            image['width'], image['height'] = size
        return size is not None

    def _image_id(self, image: dict, position: int) -> bool:
        place, first = self._first('images', 'id', image['id'])
        if first.get('file_name') != image['file_name']:  # nobody knows whose the objects are
            self.dropped['images'].add(place)
        return False

    def _file_repeated(self, image: dict, position: int) -> bool:
        self.joined['images'][image['id']] = self._first('images', 'file_name', image['file_name'])[1]['id']
        return False

    def _category_name(self, category: dict, position: int) -> bool:
        self.joined['categories'][category['id']] = self._first('categories', 'name', category['name'])[1]['id']
        return False

    def _annotation_id(self, entry: dict, position: int) -> bool:
        entry['id'] = next(self.new_ids)
        return True

    def _box_overhangs(self, entry: dict, position: int) -> bool:
        x, y, width, height = entry['bbox']
        image = self._first('images', 'id', entry['image_id'])[1]
        left, top = max(x, 0), max(y, 0)
        width, height = min(x + width, image['width']) - left, min(y + height, image['height']) - top
        entry['bbox'] = [left, top, width, height]
        entry['area'] = min(entry['area'], width * height)
        return True

    def _area_unsaid(self, entry: dict, position: int) -> bool:
        if next(entry_faults('annotations', [{**entry, 'area': 1}]), None):
            return False
        entry['area'] = entry['bbox'][2] * entry['bbox'][3]
        return True

    def _area_zero(self, entry: dict, position: int) -> bool:
        return self._area_unsaid(entry, position)

    def _crowd_unsaid(self, entry: dict, position: int) -> bool:
        entry['iscrowd'] = 0
        return True

    def _polygon(self, entry: dict, position: int) -> bool:
        entry['segmentation'] = [polygon for polygon in entry['segmentation'] if is_polygon(polygon)]
        return bool(entry['segmentation'])

    def _mask_broken(self, entry: dict, position: int) -> bool:
        flat = is_polygon(entry['segmentation'])
        if flat:
            entry['segmentation'] = [entry['segmentation']]
        return flat
