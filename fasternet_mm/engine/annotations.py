"""Annotations in COCO's format: what is wrong with a file, and whether it has the classes of a data set."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import did_you_mean

# the keys without which mmdet's CocoDataset cannot read an entry
_KEYS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}


def find_fault(path: str | Path, classes: Sequence[str] | None = None) -> str | None:
    """Return what is wrong with an annotation file as the end of a sentence that begins with its name, or None.

    It reads the whole file, so it is for one that could not be used.
    """
    path = Path(path)
    if path.suffix != '.json' or not path.is_file():
        return None
    if not path.stat().st_size:
        return 'is empty'
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # UnicodeDecodeError is one
        return f'is not JSON: {error}'
    if not isinstance(content, dict):
        return f'holds a {type(content).__name__}; annotations in COCO format are a dict of {", ".join(_KEYS)}'
    if 'data_list' in content:  # mmengine's own format
        return None
    return _fault_of_parts(content) or _fault_of_ids(content) or (classes and _fault_of_classes(content, classes))


def missing_classes(classes: Sequence[str], names: Iterable[str]) -> str | None:
    """Return which of `classes` are not among the names of a file's categories, with the nearest one, or None."""
    names = list(names)
    twice = [name for name, count in Counter(map(repr, names)).items() if count > 1]
    if twice:
        return f'has two categories of the name {twice[0]}'
    missing = [name for name in classes if name not in names]
    if not missing:
        return None
    told = ', '.join(map(repr, missing[:3])) + (', ...' if len(missing) > 3 else '')
    has = ', '.join(map(repr, names[:10])) + (', ...' if len(names) > 10 else '')
    return (
        f'has no category {told} ({len(missing)} of the {len(classes)} classes of metainfo); it has {has}'
        f'{did_you_mean(str(missing[0]), map(str, names))}'
    )


def _fault_of_parts(content: dict) -> str | None:
    for part, keys in _KEYS.items():
        if part not in content:
            return f'has no {part!r}; annotations in COCO format have {", ".join(_KEYS)}'
        if not isinstance(content[part], list):
            return f'has a {type(content[part]).__name__} for {part!r}; a list is expected'
        for position, entry in enumerate(content[part]):
            if fault := _fault_of_entry(entry, keys):
                return f'has {part}[{position}] {fault}'
    return None


def _fault_of_entry(entry, keys: Iterable[str]) -> str | None:
    if not isinstance(entry, dict):
        return f'= {str(entry)[:40]!r}; a dict of {", ".join(keys)} is expected'
    if missing := [key for key in keys if key not in entry]:
        return f'(id {entry.get("id")!r}) without {", ".join(missing)}'
    for key in ('id', 'image_id', 'category_id'):
        if key in keys and not isinstance(entry[key], (int, str)):
            return f'with {key} {entry[key]!r}; an int is expected'
    for key in ('name', 'file_name'):
        if key in keys and not isinstance(entry[key], str):
            return f'(id {entry["id"]!r}) with {key} {entry[key]!r}; a text is expected'
    for key in ('width', 'height', 'area'):
        if key in keys and not _is_number(entry[key]):
            return f'(id {entry["id"]!r}) with {key} {entry[key]!r}; a number is expected'
    if 'bbox' in keys:
        box = entry['bbox']
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            return f'(id {entry["id"]!r}) with bbox {box!r}; four numbers [x, y, width, height] are expected'
    return None


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _fault_of_ids(content: dict) -> str | None:
    for part in _KEYS:
        ids = Counter(entry['id'] for entry in content[part])
        if not ids:
            return f'has no {part}'
        name, count = ids.most_common(1)[0]
        if count > 1:
            return f'has {count} {part} of the id {name!r}'
    images = [image['id'] for image in content['images']]
    ids = [annotation['image_id'] for annotation in content['annotations']]
    if not set(images) & set(ids):
        return f'has {len(ids)} annotations of the images {ids[0]!r}, ..., but its images are {images[0]!r}, ...'
    return None


def _fault_of_classes(content: dict, classes: Sequence[str]) -> str | None:
    if fault := missing_classes(classes, (category['name'] for category in content['categories'])):
        return fault
    wanted = {category['id'] for category in content['categories'] if category['name'] in classes}
    if not any(annotation['category_id'] in wanted for annotation in content['annotations']):
        return f'has no annotation of the classes {", ".join(map(repr, classes))}'
    return None
