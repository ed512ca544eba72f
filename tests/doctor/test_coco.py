"""What is wrong inside an annotation file: each kind is found, counted and named, and --fix takes it away."""

import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fasternet_mm.doctor.coco import Reading, check_content, mask_fault
from fasternet_mm.doctor.findings import KINDS
from fasternet_mm.doctor.mending import mend
from fasternet_mm.engine.checks.images import ImageFile

CLASSES = ('circle', 'square', 'triangle')
READING = Reading('train_dataloader.dataset', CLASSES, masks=True, evaluated=True)


@pytest.fixture(scope='module')
def content(sample) -> dict:
    return json.loads((sample / 'annotations' / 'instances_val.json').read_text())


def found(content: dict, reading: Reading = READING, files=()) -> dict[str, int]:
    """How many there are of each kind of finding, notices apart."""
    findings, _ = check_content(content, reading, files)
    return {finding.kind: finding.count for finding in findings if finding.is_bad}


def entry(part: str, **values):
    """Give the second entry other values; None takes one away."""

    def change(content: dict) -> None:
        content[part][1].update(values)
        for key in [key for key, value in values.items() if value is None]:
            del content[part][1][key]

    return change


def again(part: str, **values):
    """Append the first entry once more, with other values."""
    return lambda content: content[part].append({**copy.deepcopy(content[part][0]), **values})


BREAKS = {
    'entry': entry('images', file_name=7),
    'size_unsaid': entry('images', width=None),
    'image_id': again('images'),
    'file_repeated': again('images', id=99),
    'category_name': again('categories', id=99),
    'annotation_id': again('annotations'),
    'image_nowhere': entry('annotations', image_id=99),
    'category_nowhere': entry('annotations', category_id=99),
    'box_not_finite': entry('annotations', bbox=[1, 2, math.nan, 4]),
    'box_empty': entry('annotations', bbox=[1, 2, 0, 4]),
    'box_outside': entry('annotations', bbox=[70, 2, 5, 5]),
    'box_overhangs': entry('annotations', bbox=[-5, 2, 30, 30]),
    'area_unsaid': entry('annotations', area=None),
    'area_zero': entry('annotations', area=0),
    'crowd_unsaid': entry('annotations', iscrowd=None),
    'mask_unsaid': entry('annotations', segmentation=[]),
    'mask_broken': entry('annotations', segmentation=dict(size=[64, 64], counts=[1, 2])),
    'polygon': entry('annotations', segmentation=[[1, 2, 3, 4], [1, 2, 30, 2, 30, 30]]),
    'mask_empty': entry('annotations', segmentation=dict(size=[64, 64], counts=[64 * 64])),
}


def test_a_good_file_has_nothing(content):
    assert found(content) == {}


@pytest.mark.parametrize('kind', BREAKS)
def test_what_is_broken_is_found_named_and_mended(content, kind):
    broken = copy.deepcopy(content)
    BREAKS[kind](broken)
    findings, _ = check_content(broken, READING)
    (finding,) = [finding for finding in findings if finding.is_bad]
    assert (finding.kind, finding.count) == (kind, 1) and len(finding.names) == 1
    before = copy.deepcopy(broken)
    files = [ImageFile(size=(64, 64), stored_size=(64, 64))] * len(broken['images'])
    mended, _, counts = mend(broken, findings, files, READING)
    assert repr(broken) == repr(before)  # NaN is not NaN
    assert found(mended) == {} and counts[kind] == 1
    assert len(mended['annotations']) >= len(content['annotations']) - 8


def test_every_kind_that_is_mended_has_a_test():
    of_files = {kind for kind in KINDS if kind.startswith('image_')} - {'image_id', 'image_nowhere'}
    assert {kind for kind, row in KINDS.items() if row.mend} - of_files - {'train_and_val'} == set(BREAKS)


def test_ids_of_two_categories_are_found_and_left(content):
    broken = copy.deepcopy(content)
    broken['categories'][1]['id'] = broken['categories'][0]['id']
    findings, _ = check_content(broken, READING)
    assert 'category_id' in {finding.kind for finding in findings}
    assert 'category_id' in found(mend(broken, findings, [None] * 4, READING)[0])


FILES = {
    'image_missing': ImageFile('missing', 'does not exist'),
    'image_empty': ImageFile('empty', 'is empty'),
    'image_unreadable': ImageFile('unreadable', 'is damaged'),
    'image_damaged': ImageFile('damaged', 'is cut', (64, 64), (64, 64)),
    'image_size': ImageFile(size=(32, 64), stored_size=(32, 64)),
    'image_turned': ImageFile(size=(32, 64), stored_size=(64, 64), orientation=6),
}
GOOD = ImageFile(size=(64, 64), stored_size=(64, 64))


@pytest.mark.parametrize('kind', FILES)
def test_an_image_that_is_no_good_goes_with_its_objects(content, kind):
    files = [GOOD, FILES[kind], GOOD, GOOD]
    findings, _ = check_content(content, READING, files)
    (finding,) = [finding for finding in findings if finding.is_bad]
    assert (finding.kind, finding.count) == (kind, 1) and '000002.png' in finding.names[0]
    mended, kept, counts = mend(content, findings, files, READING)
    gone = [one for one in content['annotations'] if one['image_id'] == 2]
    assert kept == [0, 2, 3] and counts == {kind: 1, 'with_image': len(gone)} and gone
    assert found(mended, files=[GOOD] * 3) == {}


def test_notices(content):
    notable = copy.deepcopy(content)
    notable['annotations'] = [one for one in notable['annotations'] if one['image_id'] != 1 and one['category_id'] != 3]
    notable['annotations'][0]['bbox'][2] = 0.5
    notable['categories'].append(dict(id=9, name='cat'))
    findings, whole = check_content(notable, READING, [GOOD, GOOD, ImageFile(size=(64, 64), orientation=3), GOOD])
    names = {finding.kind: finding.names for finding in findings}
    assert not any(finding.is_bad for finding in findings)
    assert names['no_annotations'][0] == '000001.png' and names['class_empty'] == ["'triangle'"]
    assert names['category_unasked'] == ["'cat'"] and len(names['box_tiny']) == 1
    assert names['orientation'] == ['000003.png']
    assert whole.counts().total() == len(notable['annotations'])


def test_a_set_without_an_object_of_the_classes(content):
    crowds = copy.deepcopy(content)
    for one in crowds['annotations']:
        one['iscrowd'] = 1
    assert found(crowds) == {'no_objects': 1}


def test_masks_are_for_configs_that_ask_for_them(content):
    broken = copy.deepcopy(content)
    for one in broken['annotations']:
        del one['segmentation'], one['iscrowd']
    assert found(broken, Reading('here', CLASSES)) == {}


def test_a_joined_image_has_the_objects_of_both_entries_once(content):
    twice = copy.deepcopy(content)
    first = [one for one in content['annotations'] if one['image_id'] == 1]
    twice['images'].append({**content['images'][0], 'id': 99})
    number = len(content['annotations'])
    twice['annotations'] += [{**one, 'id': number + i + 1, 'image_id': 99} for i, one in enumerate(first)]
    other = dict(first[0], id=number + 50, image_id=99, bbox=[3, 4, 9, 9])
    twice['annotations'].append(other)
    mended, _, counts = mend(twice, check_content(twice, READING)[0], [None] * 5, READING)
    assert mended['annotations'] == [*content['annotations'], {**other, 'image_id': 1}] and counts['file_repeated'] == 1


def test_an_id_of_two_images_takes_both_with_it(content):
    """Nobody knows whose the objects are."""
    broken = copy.deepcopy(content)
    broken['images'][1]['id'] = broken['images'][0]['id']
    mended, kept, _ = mend(broken, check_content(broken, READING)[0], [None] * 4, READING)
    assert kept == [2, 3] and {one['image_id'] for one in mended['annotations']} == {3, 4}


def test_a_flat_polygon_becomes_a_list_of_one(content):
    broken = copy.deepcopy(content)
    broken['annotations'][0]['segmentation'] = flat = [1, 2, 30, 2, 30, 30]
    assert found(broken) == {'mask_broken': 1}
    mended, _, _ = mend(broken, check_content(broken, READING)[0], [None] * 4, READING)
    assert mended['annotations'][0]['segmentation'] == [flat]


NUMBERS = st.integers(-200, 200) | st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(max_examples=100, deadline=None)
@given(boxes=st.lists(st.lists(NUMBERS, min_size=3, max_size=5), min_size=1, max_size=6))
def test_whatever_the_boxes_are_what_is_left_is_inside(boxes):
    content = dict(
        images=[dict(id=1, file_name='a.png', width=64, height=48)],
        categories=[dict(id=1, name='a')],
        annotations=[dict(id=i, image_id=1, category_id=1, bbox=box, area=9, iscrowd=0) for i, box in enumerate(boxes)],
    )
    findings, _ = check_content(content, Reading('here', ('a',)))
    mended, _, _ = mend(content, findings, [None], Reading('here', ('a',)))
    assert set(found(mended, Reading('here', ('a',)))) <= {'no_objects'}
    for one in mended['annotations']:
        x, y, width, height = one['bbox']
        assert width > 0 and height > 0 and min(x, y) >= -1 and x + width <= 65 and y + height <= 49
        assert one['bbox'] in boxes or (min(x, y) >= 0 and x + width <= 64.001 and y + height <= 48.001)


MASKS = st.recursive(
    st.none()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.lists(st.floats(-1e7, 1e7), min_size=6, max_size=6),
    lambda inner: (
        st.lists(inner, max_size=7) | st.fixed_dictionaries(dict(size=st.just([48, 64])), optional=dict(counts=inner))
    ),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(mask=MASKS)
def test_whatever_a_mask_is_it_is_a_kind_of_finding_or_decodes(mask):
    kind = mask_fault(mask, 64, 48)
    if kind is not None:
        assert kind in KINDS
    elif isinstance(mask, dict):
        code = mask if isinstance(mask['counts'], str) else coco_mask.frPyObjects(mask, 48, 64)
        assert coco_mask.decode(code).any()
    else:
        assert np.sum(coco_mask.area(coco_mask.frPyObjects(mask, 48, 64))) > 0
