"""Images, annotations and classes: what is wrong is one line that names the file, before training where it can be."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.runner import Runner
from mmpretrain.datasets import CustomDataset
from PIL import Image

from fasternet_mm.engine import rehearsal
from fasternet_mm.engine.checks.annotations import find_fault
from fasternet_mm.engine.checks.classes import check_classes, check_trained_classes
from fasternet_mm.engine.samples import check_files, name_images
from fasternet_mm.errors import DataError, UserError
from tests.helpers import one_line

CLASSES = ('circle', 'square', 'triangle')


def edit(run, split, change):
    """Change the content of an annotation file in place, or replace it by what `change` returns."""
    path = run.root / 'annotations' / f'instances_{split}.json'
    content = json.loads(path.read_text())
    result = change(content)
    path.write_text(json.dumps(content if result is None else result))
    return path


def each(part, **values):
    return lambda content: [entry.update(values) for entry in content[part]] and None


def without(part, key=None):
    return lambda content: (content[part][0].pop(key) if key else content.pop(part)) and None


SHAPES = {
    'a list': (
        lambda content: [],
        'holds a list; annotations in COCO format are a dict of',
    ),
    'no categories': (
        without('categories'),
        "has no 'categories'; annotations in COCO format have ",
    ),
    'no images': (without('images'), "has no 'images'; "),
    'no annotations': (without('annotations'), "has no 'annotations'; "),
    'nothing annotated': (lambda content: content.update(annotations=[]), 'has no annotations'),
    'names for categories': (
        lambda content: content.update(categories=['a']),
        "has categories[0] = 'a'; a dict of id",
    ),
    'a size left out': (without('images', 'width'), 'has images[0] (id 1) without width'),
    'a box left out': (without('annotations', 'bbox'), 'has annotations[0] (id 1) without bbox'),
    'a box of three': (
        each('annotations', bbox=[1, 2, 3]),
        'has annotations[0] (id 1) with bbox [1, 2, 3]; four',
    ),
    'boxes as text': (each('annotations', bbox=list('1234')), "with bbox ['1', '2', '3', '4']; four numbers"),
    'one id': (each('annotations', id=1), 'annotations of the id 1'),
    'other images': (
        each('annotations', image_id=999),
        'annotations of the images 999, ..., but its images are 1',
    ),
}


@pytest.mark.parametrize('case', SHAPES)
def test_an_annotation_file_of_the_wrong_shape_is_named(damaged_run, case):
    change, told = SHAPES[case]
    path = edit(damaged_run, 'train', change)
    line = damaged_run.error()
    assert line.startswith(f'{path}, which the config names as train_dataloader.dataset.ann_file, ') and told in line


@pytest.mark.parametrize(('content', 'told'), [('', 'is empty'), ('{"images": [', 'is not JSON: Expecting value')])
def test_a_file_that_is_no_json_is_named(damaged_run, content, told):
    path = damaged_run.root / 'annotations' / 'instances_val.json'
    path.write_text(content)
    assert damaged_run.error().startswith(f'{path}, which the config names as val_dataloader.dataset.ann_file, {told}')


NO_OBJECTS = {
    'no annotations': ('val', lambda content: content.update(annotations=[])),
    'other images': ('val', each('annotations', image_id=999)),
    'other categories': ('val', each('annotations', category_id=77)),
    'nothing but crowds': ('val', each('annotations', iscrowd=1)),
    'nothing but NaN': ('val', each('annotations', bbox=[math.nan] * 4)),
    'nothing but NaN to train on': ('train', each('annotations', bbox=[math.nan] * 4)),
    'nothing but crowds to train on': ('train', each('annotations', iscrowd=1)),
}


@pytest.mark.parametrize('case', NO_OBJECTS)
def test_data_without_an_object_are_an_error(damaged_run, case):
    split, change = NO_OBJECTS[case]
    path = edit(damaged_run, split, change)
    line = damaged_run.error()
    assert (
        line.startswith(f'{split}_dataloader.dataset has no object of its classes on any of its ') and str(path) in line
    )


def test_a_misspelt_class_is_named_with_the_nearest_category(tiny_run):
    for split in ('train', 'val'):
        line = tiny_run.error(**{f'{split}_dataloader__dataset__metainfo__classes': ('circle', 'sqare', 'triangle')})
        assert f"{split}_dataloader.dataset.ann_file, has no category 'sqare' (1 of the 3 classes" in line
        assert line.endswith("it has 'circle', 'square', 'triangle'; did you mean 'square'?")


ENDLESS = [[math.nan, 1, 20, 20], [1, 1, math.inf, 20], [-math.inf, 1, 20, 20]]


@pytest.mark.parametrize('box', ENDLESS)
@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_single_box_that_is_none_is_named(damaged_run, split, box):
    path = edit(damaged_run, split, lambda content: content['annotations'][3].update(bbox=box))
    line = damaged_run.error()
    assert line.startswith(
        f'{path}, which the config names as {split}_dataloader.dataset.ann_file, has annotations[3] '
    )
    assert f'(id 4) with bbox {box!r}; four numbers [x, y, width, height] are expected' in line


def test_a_name_that_looks_like_a_number_that_is_none_is_fine(damaged_run):
    edit(damaged_run, 'train', lambda content: content.update(info='NaN, Infinity'))
    damaged_run.prepare()


def reordered(content) -> None:
    """Other ids for the classes, in another order, and the same objects."""
    names = {category['id']: category['name'] for category in content['categories']}
    content['categories'] = [dict(id=i + 1, name=name) for i, name in enumerate(['triangle', 'circle', 'square'])]
    ids = {category['name']: category['id'] for category in content['categories']}
    for annotation in content['annotations']:
        annotation['category_id'] = ids[names[annotation['category_id']]]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_file_with_the_classes_in_another_order_is_named(damaged_run, split):
    path = edit(damaged_run, split, reordered)
    line = damaged_run.error()
    assert line == (
        f"{split}_dataloader.dataset.metainfo.classes has 'circle' as number 0, but {path}, which the config names as "
        f'{split}_dataloader.dataset.ann_file, has it as number 1; what is found would get wrong names, and AP could '
        "be wrong: give 'triangle', 'circle', 'square'"
    )


def test_a_validation_with_the_classes_in_another_order_is_named(damaged_run):
    edit(damaged_run, 'val', reordered)
    line = damaged_run.error(val_dataloader__dataset__metainfo__classes=('triangle', 'circle', 'square'))
    assert (
        "train_dataloader.dataset.metainfo.classes has 'circle' as number 0, but val_dataloader.dataset has it" in line
    )


def test_an_evaluator_with_the_classes_in_another_order_is_named(damaged_run):
    other = damaged_run.root / 'other.json'
    before = (damaged_run.root / 'annotations' / 'instances_val.json').read_text()
    other.write_text(edit(damaged_run, 'val', reordered).read_text())
    (damaged_run.root / 'annotations' / 'instances_val.json').write_text(before)
    line = damaged_run.error(val_evaluator__ann_file=str(other))
    assert f"has 'circle' as number 0, but {other}, which the config names as val_evaluator.ann_file, has it as" in line


def test_a_checkpoint_with_the_classes_in_another_order_is_told(damaged_run, run_tool, trained_detector):
    config, checkpoint = trained_detector
    edit(damaged_run, 'val', reordered)
    options = [
        'test_dataloader.dataset.metainfo.classes=(triangle,circle,square)',
        f'test_dataloader.dataset.data_root={damaged_run.root}/',
        f'test_evaluator.ann_file={damaged_run.root}/annotations/instances_val.json',
    ]
    done = run_tool('test.py', config, checkpoint, '--work-dir', damaged_run.cfg.work_dir, '--cfg-options', *options)
    assert "the checkpoint has 'circle' as number 0, but test_dataloader.dataset.metainfo.classes has it" in done.stdout


OTHER_ORDER = [dict(CLASSES=('b', 'a')), *(dict(dataset_meta={name: ['b', 'a']}) for name in ('classes', 'CLASSES'))]
NO_ORDER = [None, 3, {}, dict(dataset_meta=3), *(dict(CLASSES=names) for names in (3, 'ba', [[], {}], ['a', 'b']))]


@pytest.mark.parametrize('meta', OTHER_ORDER + NO_ORDER)
def test_whatever_a_checkpoint_says_of_its_classes(meta):
    dataset, said = SimpleNamespace(metainfo=dict(classes=('a', 'b'))), []
    check_trained_classes(dict(meta=meta), dataset, SimpleNamespace(warning=said.append))
    assert len(said) == (meta in OTHER_ORDER)


def test_folders_in_another_order_than_the_classes_are_named(image_folder):
    folders = CustomDataset(data_root=str(image_folder), data_prefix='val', metainfo=dict(classes=('red', 'a', 'b')))
    with pytest.raises(
        UserError, match=r"^x\.metainfo\.classes has 'red' as number 0, but .* \(in alphabetical order\)"
    ):
        check_classes(folders, 'x')
    check_classes(CustomDataset(data_root=str(image_folder), data_prefix='val'), 'x')


@pytest.mark.parametrize('label', [3, -1])
def test_a_label_of_no_class_is_named_with_its_image(image_folder, tmp_path, label):
    file = tmp_path / 'labels.txt'
    file.write_text(f'blue/0.png 0\nred/1.png {label}\n')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmpretrain.PackInputs')]
    settings = dict(data_root=str(image_folder), data_prefix='val', metainfo=dict(classes=('a', 'b', 'c')))
    images = CustomDataset(ann_file=str(file), pipeline=pipeline, **settings)
    told = rf"image '.*/val/red/1\.png' has the label {label}, but the 3 classes are 0 to 2"
    with pytest.raises(UserError, match=f'^x: {told}'):
        check_files(images, 'x')
    name_images(images)
    images[0]
    with pytest.raises(DataError, match=f'^{told}'):
        images[1]


def test_classes_of_coco_on_three(tiny_run):
    classes = tuple(f'class {number}' for number in range(80))
    line = tiny_run.error(train_dataloader__dataset__metainfo__classes=classes)
    assert "has no category 'class 0', 'class 1', 'class 2', ... (80 of the 80 classes of metainfo)" in line


def test_one_class_is_a_tuple_of_one(tiny_run):
    line = tiny_run.error(val_dataloader__dataset__metainfo__classes='circle')
    assert 'metainfo.classes must be a tuple of names' in line and 'circle' in line


def test_categories_that_are_not_asked_for_are_told_in_one_line(damaged_run, caplog):
    for split in ('train', 'val'):
        edit(damaged_run, split, lambda content: content['categories'].append(dict(id=9, name='star')))
    runner = damaged_run.prepare()
    log = next(handler for handler in runner.logger.handlers if hasattr(handler, 'baseFilename')).baseFilename
    (line,) = [line for line in open(log) if 'WARNING' in line and 'categories' in line]
    assert "val_evaluator.ann_file, has 1 categories that are not asked for, and left out: 'star'" in line


def test_an_evaluator_for_other_images_or_classes(damaged_run):
    path = edit(damaged_run, 'val', each('images', id=1))  # something else than the data set reads
    other = damaged_run.root / 'other.json'
    content = json.loads((damaged_run.root / 'annotations' / 'instances_train.json').read_text())
    for image in content['images']:
        image['id'] += 100
    other.write_text(json.dumps(content))
    path.write_text((damaged_run.root / 'annotations' / 'instances_train.json').read_text())
    data = dict(val_dataloader__dataset__data_prefix__img='train/', val_evaluator__ann_file=str(other))
    line = damaged_run.error(**data)
    assert line.startswith(
        f'{other}, which the config names as val_evaluator.ann_file, does not have 12 of the 12 images'
    )
    content['images'] = json.loads(path.read_text())['images']
    content['categories'][0]['name'] = 'circel'
    other.write_text(json.dumps(content))
    assert "has no category 'circle' (1 of the 3 classes" in damaged_run.error(**data)


def picture(mode, size=(64, 64), **options):
    def write(path):
        pixels = np.random.RandomState(0).randint(0, 255, (size[1], size[0], 3), np.uint8)
        if mode == 'I;16':
            Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(path, **options)
        else:
            Image.fromarray(pixels).convert(mode).save(path, **options)

    return write


IMAGES = {
    'missing': (lambda path: path.unlink(), 'does not exist'),
    'of zero bytes': (lambda path: path.write_bytes(b''), 'is empty'),
    'truncated': (lambda path: path.write_bytes(path.read_bytes()[:1000]), 'is damaged, or of a format that cannot be'),
    'of text': (lambda path: path.write_text('text' * 99), 'is damaged, or of a format that cannot be read'),
    'of another size': (picture('RGB', (80, 64)), 'has 80 x 64 pixels, but is annotated as one of 64 x 64'),
}


@pytest.mark.parametrize(('split', 'case'), [*(('train', case) for case in IMAGES), ('val', 'of another size')])
def test_a_first_image_that_cannot_be_used_is_named(damaged_run, split, case):
    damage, told = IMAGES[case]
    path = damaged_run.root / split / '000001.png'
    damage(path)
    line = damaged_run.error()
    assert line.startswith(f'{split}_dataloader.dataset: image {str(path)!r} ') and told in line


@pytest.mark.parametrize(('damage', 'told'), [IMAGES['missing'], IMAGES['of zero bytes']])
def test_a_missing_or_empty_image_is_found_wherever_it_is(damaged_run, damage, told):
    damage(damaged_run.root / 'val' / '000004.png')
    assert f"000004.png' {told}" in damaged_run.error()


@pytest.mark.parametrize('workers', [0, 1])
def test_an_image_is_named_where_it_happens(damaged_run, workers):
    path = damaged_run.root / 'train' / '000011.png'
    path.write_text('no image')
    loader = Runner.build_dataloader(damaged_run.changed(train_dataloader__num_workers=workers).train_dataloader)
    name_images(loader.dataset)
    with pytest.raises(DataError) as error:
        list(loader)
    assert str(error.value).startswith(f'image {str(path)!r} is damaged') and '\n' not in str(error.value)
    assert bool(getattr(error.value, '__notes__', ())) == bool(workers)  # a worker's traceback is kept for --traceback


def test_the_command_line_names_an_image_that_a_worker_meets(run_tool, tiny_config, damaged_run, quick_runner):
    (damaged_run.root / 'train' / '000011.png').write_text('no image')
    options = [f'{split}_dataloader.dataset.data_root={damaged_run.root}/' for split in ('train', 'val')]
    options.append(f'val_evaluator.ann_file={damaged_run.root}/annotations/instances_val.json')
    done = run_tool('train.py', tiny_config(num_workers=1), '--cfg-options', *options, check=False)
    assert "000011.png' is damaged" in one_line(done)


MODES = {'16': picture('I;16'), 'L': picture('L'), 'RGBA': picture('RGBA'), 'CMYK': picture('CMYK', format='JPEG')}


@pytest.mark.parametrize('write', MODES.values(), ids=MODES)
def test_images_of_other_modes_are_read_as_three_channels_of_eight_bits(damaged_run, write):
    write(damaged_run.root / 'train' / '000001.png')
    runner = damaged_run.prepare(train_dataloader__sampler__shuffle=False)
    inputs = runner.train_dataloader.dataset[0]['inputs']
    assert len(inputs) == 3 and inputs.dtype == torch.uint8 and inputs.float().std() > 10


def test_an_image_of_10000_x_1_is_named_where_resizing_leaves_no_row(damaged_run):
    picture('RGB', (10000, 1))(damaged_run.root / 'train' / '000001.png')
    edit(damaged_run, 'train', lambda content: content['images'][0].update(width=10000, height=1))
    line = damaged_run.error()
    assert "000001.png' of 10000 x 1 pixels or its annotations cannot be used: " in line


@pytest.mark.parametrize('broken', [dict(size=[64, 64], counts='##'), dict(size=[10, 10], counts=[100]), 'text', None])
def test_a_broken_mask_is_named_with_its_image(damaged_run, broken):
    edit(damaged_run, 'val', each('annotations', segmentation=broken))
    line = damaged_run.error()
    assert "val/000001.png' of 64 x 64 pixels or its annotations cannot be used: LoadAnnotations: " in line


def test_testing_checks_its_data_too(damaged_run):
    edit(damaged_run, 'val', lambda content: content.update(annotations=[]))
    cfg = damaged_run.changed()
    runner = rehearsal.prepare_runner(cfg, 'test')
    with pytest.raises(UserError, match='test_dataloader.dataset has no object of its classes on any of its 4 images'):
        rehearsal.run(runner, cfg, 'test')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 99) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(['id', 'bbox', 'name', 'x']), inner),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    part=st.sampled_from([None, 'images', 'annotations', 'categories']),
    key=st.sampled_from([None, 'id', 'image_id', 'category_id', 'bbox', 'width', 'area', 'name']),
    value=JSON,
)
def test_whatever_is_in_the_file_it_is_one_sentence_or_nothing(sample, tmp_path_factory, part, key, value):
    content = json.loads((sample / 'annotations' / 'instances_val.json').read_text())
    if part is None:
        content = value
    elif key is None:
        content[part] = value
    else:
        content[part][0][key] = value
    path = tmp_path_factory.getbasetemp() / 'any.json'
    path.write_text(json.dumps(content))
    fault = find_fault(path, CLASSES)
    assert fault is None or (fault and '\n' not in fault.strip())
