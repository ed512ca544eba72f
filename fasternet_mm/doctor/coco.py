"""What is wrong inside the content of one annotation file in COCO's format."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from ..engine.checks.annotations import PARTS, entry_faults
from ..engine.checks.images import ImageFile
from .findings import Finding

SHOWN = 5  # names of a finding
_SLACK = 1.0  # pixels by which a box may reach outside
_FAR = 1e6  # pixels: pycocotools walks along a polygon's sides, wherever they are


@dataclass
class Reading:
    """What a config reads of an annotation file.

    Attributes:
        place (str): The key of its data set in the config.
        classes (Sequence[str]): The classes of the data set; () takes all.
        masks (bool): Whether a pipeline or a metric asks for masks.
        evaluated (bool): Whether COCO's evaluation reads it.
        annotated (bool): Whether it should have objects: those of some test sets are not public.
    """

    place: str
    classes: Sequence[str] = ()
    masks: bool = False
    evaluated: bool = False
    annotated: bool = True


class Content:
    """The entries of a file that are whole, as arrays; positions are those of the file's lists.

    Attributes:
        images (list[int]): Positions of whole images; `annotations` and `categories` alike.
        image_of (np.ndarray): For each whole annotation the position of its image, or -1.
        boxes (np.ndarray): (n, 4) x, y, width, height.
        is_somewhere (dict[str, np.ndarray]): (n,) bool, whether its image, and its category, is listed at all.
        sizes (np.ndarray): (n, 2) width and height of the image of each, NaN where there is none.
        wanted (np.ndarray): (n,) bool, whether its category is one of the classes.
    """

    def __init__(self, content: dict, reading: Reading) -> None:
        self.content, self.reading, self.findings = content, reading, []
        for part in PARTS:
            setattr(self, part, self._whole(part))
        images, annotations = content['images'], content['annotations']
        self._place_of = place_of = {images[i]['id']: i for i in self.images}
        self.names = {content['categories'][i]['id']: content['categories'][i]['name'] for i in self.categories}
        classes = reading.classes or self.names.values()
        wanted = {number for number, name in self.names.items() if name in classes}
        entries = [annotations[i] for i in self.annotations]
        self.image_of = np.array([place_of.get(entry['image_id'], -1) for entry in entries], int)
        self.is_somewhere = {}
        for part, key in (('images', 'image_id'), ('categories', 'category_id')):
            listed = set(ids_of(content[part]))  # whole or not
            self.is_somewhere[part] = np.array([entry[key] in listed for entry in entries], bool)
        self.wanted = np.array([entry['category_id'] in wanted for entry in entries], bool)
        self.crowd = np.array([bool(entry.get('iscrowd') or entry.get('ignore')) for entry in entries], bool)
        self.boxes = np.array([entry['bbox'] for entry in entries], float).reshape(-1, 4)
        self.areas = np.array([entry['area'] for entry in entries], float)
        sizes = np.full((len(images) + 1, 2), np.nan)
        for i in self.images:
            sizes[i] = images[i]['width'], images[i]['height']
        self.sizes = sizes[self.image_of]

    def _whole(self, part: str) -> list[int]:
        """Note the entries that are not whole, and return the positions of the others."""
        entries = self.content[part]
        bad = defaultdict(list)
        for position, keys, told in entry_faults(part, entries):
            bad[_kind_of_entry(part, keys, entries[position])].append((position, told))
        for kind, faults in bad.items():
            self.add(
                kind,
                part,
                [position for position, _ in faults],
                lambda i, told=dict(faults): told[i].removeprefix('has '),
            )
        left_out = {position for faults in bad.values() for position, _ in faults}
        return [position for position in range(len(entries)) if position not in left_out]

    def add(self, kind: str, part: str, positions: Iterable[int], name: Callable[[int], str] | None = None) -> None:
        """Note a finding about entries, unless there are none; by default they are named as :meth:`named` does."""
        positions = [int(position) for position in positions]
        if positions:
            names = [(name or (lambda i: self.named(part, i)))(position) for position in positions[:SHOWN]]
            self.findings.append(Finding(kind, self.reading.place, len(positions), names, part, positions))

    def named(self, part: str, position: int) -> str:
        entry = self.content[part][position]
        if part == 'images':
            return str(entry['file_name'])
        if part == 'categories':
            return repr(entry['name'])
        place = self._place_of.get(entry['image_id'])
        image = f'image {entry["image_id"]!r}' if place is None else self.content['images'][place]['file_name']
        return f'{image}: object {entry["id"]!r} at {[round(value, 1) for value in entry["bbox"]]}'

    def counts(self) -> Counter:
        """Return the number of objects by the class's name, crowds apart."""
        entries = self.content['annotations']
        kept = zip(self.annotations, self.wanted & ~self.crowd & (self.image_of >= 0))
        return Counter(self.names[entries[i]['category_id']] for i, counts in kept if counts)


def _kind_of_entry(part: str, keys: Sequence[str], entry) -> str:
    if part == 'images' and set(keys) <= {'width', 'height'}:
        return 'size_unsaid'
    if part == 'annotations' and keys == ['area']:
        return 'area_unsaid'
    return 'box_not_finite' if keys == ['bbox'] and 'bbox' in entry else 'entry'


def check_content(
    content: dict, reading: Reading, files: Sequence[ImageFile | None] = ()
) -> tuple[list[Finding], Content]:
    """Check all of a file's entries, which :func:`~fasternet_mm.engine.checks.annotations.fault_of_parts` takes.

    Args:
        content (dict): Of the file.
        reading (Reading): What the config reads of it.
        files (Sequence[ImageFile | None]): What is known of the file of each image; None of one that nobody looked at.

    Returns:
        tuple: The findings, and the entries as arrays.
    """
    whole = Content(content, reading)
    _check_ids(whole)
    _check_boxes(whole)
    if reading.evaluated:
        whole.add(
            'crowd_unsaid', 'annotations', (i for i in whole.annotations if 'iscrowd' not in content['annotations'][i])
        )
    if reading.masks:
        _check_masks(whole)
    _check_files(whole, files)
    _check_classes(whole)
    return whole.findings, whole


def ids_of(entries: list) -> list[int | str | None]:
    """Return the id of each entry, None where it has none that can be one."""
    ids = (one.get('id') if isinstance(one, dict) else None for one in entries)
    return [number if isinstance(number, (int, str)) else None for number in ids]


def repeated(values: Iterable) -> list[int]:
    """Return the positions of values that were there before."""
    seen, found = set(), []
    for position, value in enumerate(values):
        if value in seen:
            found.append(position)
        seen.add(value)
    return found


def _check_ids(whole: Content) -> None:
    images = whole.content['images']
    again = [whole.images[i] for i in repeated(images[i]['id'] for i in whole.images)]
    whole.add('image_id', 'images', again)
    rest = sorted(set(whole.images) - set(again))
    whole.add('file_repeated', 'images', (rest[i] for i in repeated(images[i]['file_name'] for i in rest)))
    for kind, part, key in (
        ('annotation_id', 'annotations', 'id'),
        ('category_id', 'categories', 'id'),
        ('category_name', 'categories', 'name'),
    ):
        positions, entries = getattr(whole, part), whole.content[part]
        whole.add(kind, part, (positions[i] for i in repeated(entries[i][key] for i in positions)))
    for kind, part in (('image_nowhere', 'images'), ('category_nowhere', 'categories')):
        whole.add(kind, 'annotations', np.array(whole.annotations, int)[~whole.is_somewhere[part]])


def _check_boxes(whole: Content) -> None:
    x, y, width, height = whole.boxes.T
    image_width, image_height = whole.sizes.T
    positions = np.array(whole.annotations, int)
    here = whole.image_of >= 0
    empty = (width <= 0) | (height <= 0)
    outside = here & ~empty & ((x >= image_width) | (y >= image_height) | (x + width <= 0) | (y + height <= 0))
    over = np.maximum.reduce([-x, -y, x + width - image_width, y + height - image_height], axis=0) > _SLACK
    inside = ~empty & ~outside
    whole.add('box_empty', 'annotations', positions[empty])
    whole.add('box_outside', 'annotations', positions[outside])
    whole.add('box_overhangs', 'annotations', positions[here & inside & over])
    whole.add('box_tiny', 'annotations', positions[inside & ((width < 1) | (height < 1))])
    whole.add('area_zero', 'annotations', positions[inside & (whole.areas <= 0)])


def is_polygon(polygon) -> bool:
    """Return whether it is a flat list of three points or more, as mmdet asks, that pycocotools can draw."""
    if not (isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0):
        return False
    try:
        numbers = np.array(polygon)
    except ValueError:  # of lists of several lengths
        return False
    return numbers.ndim == 1 and numbers.dtype.kind in 'iuf' and bool((np.abs(numbers) < _FAR).all())


def mask_fault(mask, width: float, height: float) -> str | None:
    """Return the kind of what is wrong with a segmentation of an image of this size, or None."""
    if not mask:
        return 'mask_unsaid'
    height, width = int(height), int(width)
    if not (0 < height < _FAR and 0 < width < _FAR):
        return 'mask_broken'
    if isinstance(mask, list) and all(isinstance(polygon, list) for polygon in mask):
        good = [polygon for polygon in mask if is_polygon(polygon)]
        if len(good) < len(mask):
            return 'polygon'
        codes = coco_mask.frPyObjects(good, height, width)
        return None if any(coco_mask.area(code) for code in codes) else 'mask_empty'
    if not (isinstance(mask, dict) and mask.get('size') == [height, width]):
        return 'mask_broken'
    try:
        counts = mask['counts']
        if isinstance(counts, list):
            if sum(counts) != height * width or min(counts) < 0:
                return 'mask_broken'
            return None if sum(counts[1::2]) else 'mask_empty'
        return None if coco_mask.decode(mask).any() else 'mask_empty'
    except (KeyError, TypeError, ValueError):
        return 'mask_broken'


def _check_masks(whole: Content) -> None:
    found = defaultdict(list)
    for position, size, here in zip(whole.annotations, whole.sizes, whole.image_of >= 0):
        mask = whole.content['annotations'][position].get('segmentation')
        if here and (kind := mask_fault(mask, *size)):
            found[kind].append(position)
    for kind, positions in found.items():
        whole.add(kind, 'annotations', positions)


def _check_files(whole: Content, files: Sequence[ImageFile | None]) -> None:
    found, told = defaultdict(list), {}
    for position in whole.images if files else ():
        file, image = files[position], whole.content['images'][position]
        if file is None:
            continue
        said = (image['width'], image['height'])
        if file.fault:
            kind, told[position] = f'image_{file.fault}', file.told
        elif said != file.size and said == file.stored_size:
            kind = 'image_turned'
        elif said != file.size:
            kind, told[position] = 'image_size', 'has {} x {} pixels, not {} x {}'.format(*file.size, *said)
        elif file.orientation != 1:
            kind = 'orientation'
        else:
            continue
        found[kind].append(position)
    for kind, positions in found.items():
        whole.add(kind, 'images', positions, lambda i: f'{whole.named("images", i)} {told.get(i, "")}'.strip())


def _check_classes(whole: Content) -> None:
    content, classes = whole.content, whole.reading.classes
    if not whole.reading.annotated:
        return
    filled = set(whole.image_of[whole.wanted].tolist())
    whole.add('no_annotations', 'images', (i for i in whole.images if i not in filled))
    counts = whole.counts()
    if not counts:
        names = [f'none of {len(whole.annotations)} objects is of the {len(classes or whole.names)} classes']
        whole.findings.append(Finding('no_objects', whole.reading.place, 1, names))
    if classes:
        others = (i for i in whole.categories if content['categories'][i]['name'] not in classes)
        whole.add('category_unasked', 'categories', others)
    wanted = (i for i in whole.categories if content['categories'][i]['name'] in (classes or whole.names.values()))
    whole.add('class_empty', 'categories', (i for i in wanted if not counts[content['categories'][i]['name']]))
