"""Annotations in COCO's format: what is wrong with a file, and whether it has the classes of a data set."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...errors import did_you_mean


def _is_id(value) -> bool:
    return isinstance(value, (int, str))


def _is_text(value) -> bool:
    return isinstance(value, str)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(value) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


_EXPECTED = {
    _is_id: 'an int is expected',
    _is_text: 'a text is expected',
    _is_number: 'a number is expected',
    _is_box: 'four numbers [x, y, width, height] are expected',
}
# what mmdet's CocoDataset reads of each entry
PARTS = {
    'images': dict(id=_is_id, file_name=_is_text, width=_is_number, height=_is_number),
    'annotations': dict(id=_is_id, image_id=_is_id, category_id=_is_id, bbox=_is_box, area=_is_number),
    'categories': dict(id=_is_id, name=_is_text),
}


def find_fault(path: str | Path, classes: Sequence[str] | None = None) -> str | None:
    """Return what is wrong with an annotation file as the end of a sentence that begins with its name, or None.

    It reads the whole file, so it is for one that could not be used.
    """
    if os.path.isfile(path) and not os.path.getsize(path):
        return 'is empty'
    text = _read(path)
    if text is None:
        return None
    content, fault = parse(text)
    if fault or 'data_list' in content:  # mmengine's own format
        return fault
    return (
        fault_of_parts(content)
        or _fault_of_entries(content)
        or _fault_of_ids(content)
        or (classes and _fault_of_classes(content, classes))
    )


def parse(text: bytes) -> tuple[dict, str | None]:
    """Return the dict of an annotation file's text, and what is wrong with it where it is none, as `find_fault`."""
    if not text:
        return {}, 'is empty'
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        return {}, f'is not JSON: {error}'
    if not isinstance(content, dict):
        return {}, f'holds a {type(content).__name__}; annotations in COCO format are a dict of {", ".join(PARTS)}'
    return content, None


def find_bad_box(path: str | Path) -> str | None:
    """Return which box of a file has NaN or infinity in it, as :func:`find_fault` does; mmdet leaves it out in silence.

    A file without these words is not parsed, which takes 20 s for COCO's.
    """
    content = _read(path) or b''
    if b'NaN' not in content and b'Infinity' not in content:
        return None
    faults = entry_faults('annotations', json.loads(content)['annotations'], dict(bbox=_is_box))
    return next((told for _, _, told in faults), None)


def names_by_id(path: str | Path) -> dict:
    """Return the names of a file's categories by their ids; only this part of it is parsed."""
    content = _read(path) or b''
    if start := re.search(rb'"categories"\s*:\s*(?=\[)', content):
        categories, _ = json.JSONDecoder().raw_decode(content[start.end() :].decode())
        return {category['id']: category['name'] for category in categories}
    return {}


def named(path: str | Path, setting: str) -> str:
    """Return the beginning of a sentence about a file that the config names as ``<setting>.ann_file``."""
    return f'{path}, which the config names as {setting}.ann_file,'


def _read(path: str | Path) -> bytes | None:
    """Return a file's content; None of one that is remote, not there, or not JSON."""
    path = Path(path)
    return path.read_bytes() if path.suffix == '.json' and path.is_file() else None


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


def fault_of_parts(content: dict) -> str | None:
    """Return which part of a file is missing, or is no list, as :func:`find_fault` does."""
    for part in PARTS:
        if part not in content:
            return f'has no {part!r}; annotations in COCO format have {", ".join(PARTS)}'
        if not isinstance(content[part], list):
            return f'has a {type(content[part]).__name__} for {part!r}; a list is expected'
    return None


def entry_faults(part: str, entries: Iterable, keys: dict | None = None) -> Iterator[tuple[int, list[str], str]]:
    """Yield the position of each entry that lacks something, which keys it is about, and what is wrong."""
    keys = keys or PARTS[part]
    for position, entry in enumerate(entries):
        place = f'has {part}[{position}]'
        if not isinstance(entry, dict):
            yield position, list(keys), f'{place} = {str(entry)[:40]!r}; a dict of {", ".join(keys)} is expected'
            continue
        place += f' (id {entry.get("id")!r})'
        if missing := [key for key in keys if key not in entry]:
            yield position, missing, f'{place} without {", ".join(missing)}'
            continue
        for key, is_right in keys.items():
            if not is_right(entry[key]):
                yield position, [key], f'{place} with {key} {entry[key]!r}; {_EXPECTED[is_right]}'
                break


def _fault_of_entries(content: dict) -> str | None:
    faults = (told for part in PARTS for _, _, told in entry_faults(part, content[part]))
    return next(faults, None)


def _fault_of_ids(content: dict) -> str | None:
    for part in PARTS:
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
