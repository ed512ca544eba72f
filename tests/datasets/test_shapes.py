import hashlib
import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from fasternet_mm.datasets import generate_shapes


def digest(root) -> str:
    files = sorted(p for p in root.rglob('*') if p.is_file())
    return hashlib.sha256(b''.join(p.read_bytes() for p in files)).hexdigest()


def test_same_seed_same_bytes_other_seed_others(tmp_path):
    args = dict(num_train=3, num_val=2, size=96)
    digests = [digest(generate_shapes(tmp_path / name, **args, seed=seed))
               for name, seed in [('a', 0), ('b', 0), ('c', 1)]]  # fmt: skip
    assert digests[0] == digests[1] != digests[2]


def test_train_and_val_are_disjoint(tmp_path):
    root = generate_shapes(tmp_path, num_train=6, num_val=6, size=64)
    pictures = {split: {p.read_bytes() for p in (root / split).iterdir()} for split in ('train', 'val')}
    assert len(pictures['train']) == len(pictures['val']) == 6
    assert not pictures['train'] & pictures['val']


def test_is_coco_with_visible_masks_in_rle(tmp_path):
    root = generate_shapes(tmp_path, num_train=20, num_val=1, size=128)
    coco = COCO(root / 'annotations' / 'instances_train.json')
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == ['circle', 'square', 'triangle']
    widths, touching = [], 0
    for image in coco.imgs.values():
        picture = cv2.imread(str(root / 'train' / image['file_name']))
        assert picture.shape == (image['height'], image['width'], 3)
        annotations = coco.imgToAnns[image['id']]
        assert annotations
        masks = np.stack([coco.annToMask(a) for a in annotations])
        assert masks.sum(axis=0).max() == 1  # visible parts never overlap
        for annotation, mask in zip(annotations, masks):
            assert isinstance(annotation['segmentation']['counts'], str) and annotation['iscrowd'] == 0
            rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
            x, y = columns[0], rows[0]
            assert annotation['bbox'] == [x, y, columns[-1] - x + 1, rows[-1] - y + 1]
            assert annotation['area'] == mask.sum()
            widths.append(annotation['bbox'][2])
        grown = [cv2.dilate(m, np.ones((3, 3))) for m in masks]
        touching += sum(bool((a & b).any()) for i, a in enumerate(grown) for b in grown[:i])
    assert min(widths) < 25 and max(widths) > 60  # several sizes
    assert touching > 0  # occlusion


def test_a_finished_set_is_left_alone_and_an_unfinished_one_is_drawn_again(tmp_path):
    args = dict(num_train=2, num_val=1, size=64)
    root = generate_shapes(tmp_path, **args)
    picture = root / 'train' / '000001.png'
    stamp = picture.stat().st_mtime_ns
    generate_shapes(tmp_path, **args)
    assert picture.stat().st_mtime_ns == stamp
    picture.unlink()
    (root / 'recipe.json').unlink()
    generate_shapes(tmp_path, **args)
    assert picture.is_file()
    assert json.loads((root / 'recipe.json').read_text()).items() >= dict(**args, seed=0).items()
    (root / 'recipe.json').write_text('{}')  # another recipe
    picture.unlink()
    generate_shapes(tmp_path, **args)
    assert picture.is_file()


@pytest.mark.parametrize('name', ['circle', 'square', 'triangle'])
def test_every_class_is_drawn(sample, name):
    content = json.loads((sample / 'annotations' / 'instances_train.json').read_text())
    label = next(c['id'] for c in content['categories'] if c['name'] == name)
    assert any(a['category_id'] == label for a in content['annotations'])
