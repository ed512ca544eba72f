"""A config's data as a whole: its sets, what they have in common, their images, and the model's heads and anchors."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config

from fasternet_mm.doctor import diagnose
from fasternet_mm.doctor.model import best_iou
from fasternet_mm.engine.runner import load_config
from tests.helpers import REPO


def bad(diagnosis) -> dict[str, int]:
    """How many there are of each kind of finding, notices apart."""
    return {finding.kind: finding.count for finding in diagnosis.findings if finding.is_bad}


def test_a_good_set_is_fit_to_train_on(made):
    diagnosis = made.diagnose()
    assert not diagnosis.is_bad and bad(diagnosis) == {}
    train, val = diagnosis.sources  # validation and test are one
    assert (train.role, val.places) == ('train', ['val_dataloader.dataset', 'test_dataloader.dataset'])
    content = json.loads(made.file('train').read_text())
    assert diagnosis.counts[train.place].total() == len(content['annotations'])
    sizes = diagnosis.sizes[train.place]
    assert len(sizes.sides) == len(content['annotations']) and set(sizes.anchors) == {4, 8, 16, 32, 64}
    assert sizes.resize == 'after the resize to 192 x 192' and 0 < sizes.reached <= 1


def test_images_that_are_broken_are_found(made):
    images = made.root / 'train'
    (images / '000001.png').unlink()
    (images / '000002.png').write_bytes(b'')
    (images / '000003.png').write_bytes(b'no image')
    shutil.copy(made.root / 'val' / '000001.png', images / '000004.png')
    shutil.copy(images / '000005.png', images / '000006.png')
    made.edit('train', lambda content: content['images'][6].update(width=65))
    objects = [one for one in json.loads(made.file('train').read_text())['annotations'] if one['image_id'] == 7]
    diagnosis = made.diagnose()
    expected = dict(image_missing=1, image_empty=1, image_unreadable=1, train_and_val=1, image_size=1)
    expected['mask_broken'] = len(objects)  # their run-length code is of another size
    assert bad(diagnosis) == expected
    kinds = {finding.kind: finding for finding in diagnosis.findings}
    assert kinds['image_twice'].names == [f'{images}/000006.png'] and kinds['same_name'].count == 3
    assert [finding.is_bad for finding in diagnosis.findings] == sorted(
        (f.is_bad for f in diagnosis.findings), reverse=True
    )


@pytest.mark.parametrize(
    ('settings_', 'kind', 'told'),
    [
        (dict(train_dataloader__dataset__ann_file='none.json'), 'path', 'dataset not found: '),
        (dict(train_dataloader__dataset__data_prefix__img='none/'), 'path', 'dataset not found: '),
        (dict(train_dataloader__dataset__metainfo__classes=('circle', 'sqare', 'triangle')), 'classes', "'square'?"),
        (dict(train_dataloader__dataset__metainfo__classes=('square', 'circle', 'triangle')), 'classes', 'number 1'),
        (dict(train_dataloader__dataset__pipeline__0__type='LoadImage'), 'config', "did you mean 'LoadImage"),
        (
            dict(train_dataloader__dataset__metainfo__classes='circle'),
            'config',
            "must be a tuple of names, as ('circle',)",
        ),
        (dict(val_evaluator__ann_file='none.json'), 'path', 'which the config names as val_evaluator.ann_file'),
        (dict(model__rpn_head__anchor_generator__ratio=1), 'unchecked', 'the heads, as the model cannot be built'),
        (dict(model__roi_head__bbox_head__num_classes=4), 'classes', 'model.roi_head.bbox_head.num_classes is 4'),
    ],
)
def test_what_does_not_fit_is_named_as_a_run_names_it(made, settings_, kind, told):
    diagnosis = made.diagnose(**settings_)
    names = [name for finding in diagnosis.findings if finding.kind == kind for name in finding.names]
    assert diagnosis.is_bad == (kind != 'unchecked') and told in names[0]


@pytest.mark.parametrize(
    ('text', 'told'), [('', 'is empty'), ('{"images": [', 'is not JSON'), ('{}', "has no 'images'")]
)
def test_a_file_that_cannot_be_used(made, text, told):
    made.file('val').write_text(text)
    (finding,) = [finding for finding in made.diagnose().findings if finding.is_bad]
    assert finding.kind == 'file' and told in finding.names[0]


def test_a_metric_needs_the_file_of_its_images(made):
    content = json.loads(made.file('val').read_text())
    for image in content['images']:
        image['id'] += 100
    other = made.root / 'other.json'
    other.write_text(json.dumps(content))
    (finding,) = [finding for finding in made.diagnose(val_evaluator__ann_file=str(other)).findings if finding.is_bad]
    assert finding.kind == 'file' and 'does not have 4 of the 4 images of val_dataloader.dataset' in finding.names[0]


def test_what_is_not_here_is_not_looked_at_and_said(made):
    cfg = made.cfg()
    cfg.train_dataloader.dataset.backend_args = dict(backend='petrel')
    diagnosis = diagnose(cfg)
    (told,) = [finding.names for finding in diagnosis.findings if finding.kind == 'unchecked']
    assert told == ['the images of train_dataloader.dataset, which its backend_args fetch']
    assert not diagnosis.is_bad and len(diagnosis.files) == 4


def test_an_evaluated_set_needs_iscrowd_and_a_set_for_training_does_not(made):
    for split in ('train', 'val'):
        made.edit(split, lambda content: [one.pop('iscrowd') for one in content['annotations']])
    (finding,) = [finding for finding in made.diagnose().findings if finding.is_bad]
    assert (finding.kind, finding.place) == ('crowd_unsaid', 'val_dataloader.dataset')


def test_a_test_set_without_public_annotations(made):
    made.edit('val', lambda content: content.pop('annotations'))
    evaluator = dict(type='CocoMetric', format_only=True, metric='bbox')
    cfg = made.cfg()
    for role in ('val', 'test'):
        cfg[f'{role}_evaluator'] = Config(dict(one=evaluator)).one
    assert not [f for f in diagnose(cfg).findings if f.kind == 'file']


@pytest.mark.parametrize('wrapper', ['RepeatDataset', 'ClassBalancedDataset', 'MultiImageMixDataset', 'ConcatDataset'])
def test_wrappers_are_looked_into(made, wrapper):
    cfg = made.cfg()
    inner = cfg.train_dataloader.dataset
    extra = dict(RepeatDataset=dict(times=2), ClassBalancedDataset=dict(oversample_thr=0.1),
                 MultiImageMixDataset=dict(pipeline=[])).get(wrapper, {})  # fmt: skip
    parts = dict(datasets=[inner]) if wrapper == 'ConcatDataset' else dict(dataset=inner)
    cfg.train_dataloader.dataset = Config(dict(one=dict(type=wrapper, **extra, **parts))).one
    made.edit('train', lambda content: content['annotations'][0].update(bbox=[0, 0, 0, 0]))
    (finding,) = [finding for finding in diagnose(cfg).findings if finding.is_bad]
    key = 'datasets.0' if wrapper == 'ConcatDataset' else 'dataset'
    assert (finding.kind, finding.place) == ('box_empty', f'train_dataloader.dataset.{key}')


VOC = """<annotation><size><width>64</width><height>64</height></size>
<object><name>dog</name><bndbox><xmin>-9</xmin><ymin>3</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"""


def test_another_format_is_checked_as_far_as_mmdet_reads_it(made):
    root = made.root / 'VOC2007'
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    shutil.copy(made.root / 'train' / '000001.png', root / 'JPEGImages' / '000001.jpg')
    (root / 'Annotations' / '000001.xml').write_text(VOC)
    (root / 'ImageSets/Main/train.txt').write_text('000001\n')
    cfg = made.cfg()
    cfg.train_dataloader.dataset = Config(
        dict(one=dict(type='VOCDataset', data_root=f'{made.root}/', ann_file='VOC2007/ImageSets/Main/train.txt',
                      data_prefix=dict(sub_data_root='VOC2007/'), pipeline=[dict(type='LoadImageFromFile')]))
    ).one  # fmt: skip
    findings = {finding.kind: finding for finding in diagnose(cfg).findings}
    assert findings['box_overhangs'].count == 1
    assert 'train_dataloader.dataset is a VOCDataset: what mmdet leaves out' in findings['unchecked'].names[0]


def test_a_folder_for_each_class(image_folder, tiny_classifier_config, tmp_path):
    root = shutil.copytree(image_folder, tmp_path / 'images')
    (root / 'train' / 'red' / '0.png').write_bytes(b'')
    cfg = load_config(str(tiny_classifier_config))
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset = Config(
            dict(one=dict(type='CustomDataset', data_root=str(root), data_prefix=split, pipeline=cfg.test_pipeline))
        ).one
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    diagnosis = diagnose(cfg)
    told = [(finding.kind, finding.place) for finding in diagnosis.findings if finding.is_bad]
    assert told[:2] == [('image_empty', 'train_dataloader.dataset')] + [('classes', 'train_dataloader.dataset')]
    cfg.model.head.num_classes = 3
    (root / 'list.txt').write_text('val/red/0.png 0\nval/red/1.png 3\n')
    cfg.train_dataloader.dataset = Config(
        dict(one=dict(type='CustomDataset', data_root=str(root), ann_file='list.txt', pipeline=cfg.test_pipeline,
                      metainfo=dict(classes=('blue', 'green', 'red'))))
    ).one  # fmt: skip
    findings = {finding.kind: finding for finding in diagnose(cfg).findings}
    assert findings['label'].names == [f'{root}/val/red/1.png has the label 3']
    assert findings['train_and_val'].count == 2 and findings['class_empty'].names == ["'green'", "'red'"]


def test_an_anchor_free_detector_says_so(made):
    cfg = load_config(str(REPO / 'configs' / 'rtmdet_fasternet_t0_sample.py'))
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{made.root}/'
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(made.file('val'))
    diagnosis = diagnose(cfg)
    sizes = diagnosis.sizes['train_dataloader.dataset']
    assert not diagnosis.is_bad and sizes.reached is None and 'anchor-free (MlvlPointGenerator)' in sizes.told


SIDE = st.floats(0.5, 150)


@settings(max_examples=50, deadline=None)
@given(
    boxes=st.lists(st.tuples(st.floats(-5, 90), st.floats(-5, 60), SIDE, SIDE), min_size=1, max_size=8),
    offset=st.sampled_from([0.0, 0.5]),
)
def test_the_best_anchor_is_mmdets_of_the_whole_grid(boxes, offset):
    generator = AnchorGenerator([8, 16], ratios=[0.5, 1, 2], scales=[2, 5], center_offset=offset)
    boxes = np.array(boxes)
    width, height = 100, 70
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (8, 16)]
    grid = torch.cat(generator.grid_priors(sizes, dtype=torch.float64, device='cpu'))
    corners = torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
    want = bbox_overlaps(corners, grid).max(1).values
    got = best_iou(boxes, np.full((len(boxes), 2), [width, height], float), generator)
    assert np.allclose(got, want.numpy(), atol=1e-6)


# the 64 real images


def test_the_real_coco_images_pass(shared_data):
    cfg = load_config(str(REPO / 'configs' / 'mask_rcnn_fasternet_t0.py'))
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{shared_data}/coco64/'
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].ann_file = f'{shared_data}/coco64/annotations/instances_val2017.json'
    diagnosis = diagnose(cfg)
    assert bad(diagnosis) == {}
    assert [len(source.paths) for source in diagnosis.sources] == [48, 16]


def test_the_real_imagenet_images_pass(shared_data, tiny_classifier_config):
    cfg = load_config(str(tiny_classifier_config), {'model.head.num_classes': 64})
    cfg.train_dataloader.dataset = Config(
        dict(one=dict(type='CustomDataset', data_root=f'{shared_data}/imagenet64', pipeline=cfg.test_pipeline))
    ).one
    cfg.val_dataloader = cfg.test_dataloader = None
    diagnosis = diagnose(cfg)
    assert bad(diagnosis) == {} and diagnosis.counts['train_dataloader.dataset'].total() == 64
