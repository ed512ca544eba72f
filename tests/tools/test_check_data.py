"""tools/check_data.py, which looks at data, mends annotation files, and writes a config for one's own data."""

import ast
import json
import shutil

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from fasternet_mm.doctor import write_config
from fasternet_mm.errors import UserError
from tests.helpers import REPO, one_line


def broken(made) -> None:
    """Break the training set in several ways, and let an image of it be in validation."""

    def change(content: dict) -> None:
        objects = content['annotations']
        objects[0]['bbox'] = [float('nan'), 0, 5, 5]
        objects[1]['bbox'][2:] = [500, 500]
        objects[2]['category_id'] = 9
        objects[3]['area'] = 0
        objects[4]['segmentation'] = [[1, 2, 3, 4]]
        objects[5]['id'] = objects[6]['id']

    made.edit('train', change)
    images = made.root / 'train'
    (images / '000010.png').unlink()
    (images / '000011.png').write_bytes(b'no image')
    shutil.copy(made.root / 'val' / '000001.png', images / '000012.png')


def test_good_data_end_with_status_0_and_are_told_in_a_few_lines(run_tool, made):
    done = run_tool('check_data.py', made.config)
    first, _, second, *_, last = done.stdout.splitlines()
    assert first.startswith('train_dataloader.dataset: 12 images, ') and 'objects of 3 classes' in first
    assert second.startswith('val_dataloader.dataset, test_dataloader.dataset: 4 images, ')
    assert last.startswith('fit to train on, ')


def test_what_is_mended_is_counted_written_and_good(run_tool, made, tmp_path):
    broken(made)
    before = made.file('train').read_bytes()
    out, folder = tmp_path / 'out', tmp_path / 'mended'
    done = run_tool('check_data.py', made.config, '--out', out, '--fix', folder)
    found = json.loads((out / 'data.json').read_text())
    kinds = {finding['kind']: finding['count'] for finding in found['findings'] if finding['severity'] != 'notice'}
    assert kinds == dict(
        box_not_finite=1, box_overhangs=1, category_nowhere=1, area_zero=1, polygon=1, annotation_id=1, image_missing=1,
        image_unreadable=1, train_and_val=1,
    )  # fmt: skip
    assert found['is_bad'] and 'boxes that are not four finite numbers' in (out / 'data.md').read_text()
    for name in ('ground_truth_train', 'classes_train', 'sizes_train', 'ground_truth_val', 'classes_val', 'sizes_val'):
        assert np.ptp(cv2.imread(str(out / f'{name}.png'))) > 100
    assert '1 boxes that reach outside the image by more than a pixel: clipped' in done.stdout
    assert '1 images, by content, in training and validation: dropped from training' in done.stdout
    *_, told, line = done.stdout.splitlines()
    assert told == 'nothing is left that stops or spoils a training'
    options = line.split()
    assert options == ['--cfg-options', f'train_dataloader.dataset.ann_file={folder}/instances_train.json']
    assert [path.name for path in folder.iterdir()] == ['instances_train.json']
    assert made.file('train').read_bytes() == before
    run_tool('check_data.py', made.config, *options)


def test_without_fix_the_status_is_not_0(run_tool, made):
    made.edit('val', lambda content: content['annotations'][0].update(bbox=[0, 0, 0, 0]))
    done = run_tool('check_data.py', made.config, check=False)
    assert done.returncode == 1 and 'spoils training' in done.stdout and done.stderr == ''


def test_a_validation_file_is_mended_for_its_metric_too(run_tool, made, tmp_path):
    made.edit('val', lambda content: content['annotations'][0].update(bbox=[0, 0, 0, 0]))
    done = run_tool('check_data.py', made.config, '--fix', tmp_path / 'mended')
    settings = dict(option.split('=') for option in done.stdout.splitlines()[-1].split()[1:])
    assert set(settings) == {f'{role}_{key}.ann_file' for role in ('val', 'test')
                             for key in ('dataloader.dataset', 'evaluator')}  # fmt: skip
    assert set(settings.values()) == {f'{tmp_path}/mended/instances_val.json'}


def test_what_nobody_can_mend_is_left_and_said(run_tool, made, tmp_path):
    made.edit('train', lambda content: content['categories'][0].update(name='cat'))
    done = run_tool('check_data.py', made.config, '--fix', tmp_path / 'mended', check=False)
    assert done.returncode == 1 and 'left: classes that do not fit' in done.stdout
    assert "has no category 'circle'" in done.stdout


def test_no_file_is_written_over(run_tool, made):
    broken(made)
    folder = made.file('train').parent
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = run_tool('check_data.py', made.config, '--fix', folder, check=False)
    assert one_line(done).endswith('exists, and no file is written over; name another folder') and not done.stdout
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_files_of_one_name_get_names_of_their_own(run_tool, made, tmp_path):
    for split in ('train', 'val'):
        made.edit(split, lambda content: content['annotations'][0].update(bbox=[0, 0, 0, 0]))
        (made.root / split / 'instances.json').write_bytes(made.file(split).read_bytes())
    options = [f'{role}_dataloader.dataset.ann_file={split}/instances.json'
               for role, split in (('train', 'train'), ('val', 'val'), ('test', 'val'))]  # fmt: skip
    run_tool('check_data.py', made.config, '--fix', tmp_path / 'mended', '--cfg-options', *options)
    names = {path.name for path in (tmp_path / 'mended').iterdir()}
    assert names == {'train_instances.json', 'val_instances.json'}


def test_a_training_names_the_tool_where_its_own_checks_find_something(run_tool, made):
    (made.root / 'train' / '000007.png').unlink()
    line = one_line(run_tool('train.py', made.config, check=False))
    assert "000007.png' does not exist; python tools/check_data.py" in line and line.endswith(
        'looks at all of the data'
    )


# configs for one's own data


def test_ten_lines_for_ones_own_classes_train_a_step(run_tool, sample, tiny_config, tmp_path):
    config = tmp_path / 'mine.py'
    own = [arg for split in ('train', 'val') for arg in
           (f'--{split}', sample / 'annotations' / f'instances_{split}.json', sample / split)]  # fmt: skip
    done = run_tool('check_data.py', '--write-config', config, '--base', tiny_config(), *own, '--batch-size', 2)
    text = config.read_text()
    assert done.stdout == f'{text}-> {config}\n'
    assert len(ast.parse(text).body) == 10  # the comment apart
    cfg = Config.fromfile(config)
    assert cfg.train_dataloader.dataset.metainfo.classes == ('circle', 'square', 'triangle')
    assert cfg.model.roi_head.mask_head.num_classes == 3 and cfg.train_dataloader.batch_size == 2
    assert text.endswith(
        'base, 0.001, is for 4 images an iteration; in proportion, for 2 on one GPU:\n'
        '# optim_wrapper = dict(optimizer=dict(lr=0.0005))\n'
    )
    options = ['train_dataloader.dataset.indices=4', 'train_cfg.max_epochs=1']
    done = run_tool('train.py', config, '--cfg-options', *options)
    assert 'loss_mask' in done.stdout and 'coco/segm_mAP' in done.stdout


BASES = [
    'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'mmdet::deepfashion/mask-rcnn_r50_fpn_15e_deepfashion.py',
    'mmdet::detr/detr_r50_8xb2-150e_coco.py',
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
]


@pytest.mark.parametrize('base', BASES)
def test_every_head_gets_the_number_of_classes(base, sample, tmp_path):
    """The config is built before it is written: a head of another number is an error."""
    own = [[str(sample / 'annotations' / f'instances_{split}.json'), str(sample / split)] for split in ('train', 'val')]
    text = write_config(tmp_path / 'mine.py', base, *own)
    assert text.startswith(f'_base_ = {base!r}\n') and 'num_classes=3' in text
    settings = Config.fromfile(tmp_path / 'mine.py').train_dataloader.dataset
    while 'dataset' in settings:
        settings = settings.dataset
    assert settings.type == 'CocoDataset' and settings.data_root == f'{sample}/'


def test_paths_are_written_as_they_are_given(sample, tmp_path, monkeypatch):
    monkeypatch.chdir(sample.parent)
    name = sample.name
    own = [[f'{name}/annotations/instances_{split}.json', f'{name}/{split}'] for split in ('train', 'val')]
    text = write_config(tmp_path / 'mine.py', str(REPO / 'configs' / 'rtmdet_fasternet_t0.py'), *own)
    assert f"data_root='{name}/'" in text and "ann_file='annotations/instances_train.json'" in text
    assert "data_prefix=dict(img='train/')" in text
    assert f"val_evaluator = dict(ann_file='{name}/annotations/instances_val.json')" in text


def test_many_classes_are_on_several_lines(sample, tmp_path):
    names = [f'class {number} of many' for number in range(90)]
    content = json.loads((sample / 'annotations' / 'instances_train.json').read_text())
    content['categories'] = [dict(id=number + 1, name=name) for number, name in enumerate(names)]
    (tmp_path / 'many.json').write_text(json.dumps(content))
    own = [str(tmp_path / 'many.json'), str(sample / 'train')]
    text = write_config(tmp_path / 'mine.py', 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', own, own)
    assert max(map(len, text.splitlines())) <= 120
    assert Config.fromfile(tmp_path / 'mine.py').val_dataloader.dataset.metainfo.classes == tuple(names)


def test_a_classifier_trains_a_step(run_tool, image_folder, tiny_classifier_config, tmp_path):
    config = tmp_path / 'mine.py'
    done = run_tool('check_data.py', '--write-config', config, '--base', tiny_classifier_config, '--batch-size', 4,
                    '--train', image_folder / 'train', '--val', image_folder / 'val')  # fmt: skip
    assert 'num_classes=3' in done.stdout and done.stdout.endswith(f'-> {config}\n')
    cfg = Config.fromfile(config)
    assert cfg.val_evaluator.topk == 1 and cfg.load_from == 'fasternet://fasternet_t0' or not cfg.get('load_from')
    small = [f'{split}_dataloader.{setting}' for split in ('train', 'val') for setting in
             ('num_workers=0', 'persistent_workers=False')]  # fmt: skip
    done = run_tool('train.py', config, '--work-dir', tmp_path / 'work', '--cfg-options', *small, 'load_from=None',
                    'optim_wrapper.type=OptimWrapper', 'train_cfg.max_epochs=1')  # fmt: skip
    assert 'accuracy/top1' in done.stdout


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (dict(out='mine.txt'), '--write-config mine.txt must end in .py'),
        (
            dict(base='mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'),
            'has a ConcatDataset as train_dataloader.dataset',
        ),
        (dict(base='mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py'), 'give a base with a CocoMetric'),
        (
            dict(base='mmpretrain::resnet/resnet50_8xb32_in1k.py'),
            'is a config of mmpretrain: give --train DIR --val DIR',
        ),
        (dict(base='mmdet::retinanet/none.py'), 'config not found'),
        (dict(train='none.json'), '--train none.json does not exist'),
        (dict(train='.'), '--train . must be a file'),
        (dict(train='bad.json'), "--train bad.json has no 'images'"),
        (
            dict(val='other.json'),
            'the config would not work, and is not written: val_dataloader.dataset.metainfo.classes has',
        ),
    ],
)
def test_what_is_refused_writes_nothing(sample, tmp_path, monkeypatch, change, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'bad.json').write_text('{}')
    content = json.loads((sample / 'annotations' / 'instances_val.json').read_text())
    content['categories'].reverse()
    (tmp_path / 'other.json').write_text(json.dumps(content))
    before = sorted(tmp_path.iterdir())
    given = dict(out='mine.py', base='mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
                 train=str(sample / 'annotations' / 'instances_train.json'),
                 val=str(sample / 'annotations' / 'instances_val.json')) | change  # fmt: skip
    with pytest.raises(UserError, match=told.replace('(', r'\(')):
        write_config(tmp_path.joinpath(given['out']).relative_to(tmp_path), given['base'],
                     [given['train'], str(sample / 'train')], [given['val'], str(sample / 'val')])  # fmt: skip
    assert sorted(tmp_path.iterdir()) == before


def test_a_config_is_never_overwritten(run_tool, image_folder, tmp_path):
    (tmp_path / 'mine.py').write_text('mine')
    done = run_tool('check_data.py', '--write-config', 'mine.py', '--base', 'a.py', '--train', image_folder, '--val',
                    image_folder, check=False, cwd=tmp_path)  # fmt: skip
    assert one_line(done).endswith('--write-config mine.py exists; remove it or choose another name')
    assert (tmp_path / 'mine.py').read_text() == 'mine'
