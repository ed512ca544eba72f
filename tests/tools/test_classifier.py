"""The command lines on classifiers: the docs' ten lines, and everybody's weights through them."""

import pickle
import re

import pytest
import timm
import torch
from mmengine.config import Config
from PIL import Image
from timm.data import create_transform

from fasternet_mm.checkpoint import convert_checkpoint
from fasternet_mm.engine.preflight import check_config
from fasternet_mm.engine.runner import load_config
from fasternet_mm.errors import UserError
from tests.helpers import CLASSES, REPO, one_line
from tests.helpers.golden import official_state_dict

TRAINING = (REPO / 'docs' / 'training.md').read_text()
FAST = [f'{split}_dataloader.{setting}' for split in ('train', 'val', 'test')
        for setting in ('num_workers=0', 'persistent_workers=False')]  # fmt: skip
FEW_CLASSES = ['val_evaluator.topk=1', 'test_evaluator.topk=1']


@pytest.fixture(scope='module')
def ten_lines(tmp_path_factory, image_folder):
    """The documented config for one's own folder of images, with the paths of this machine in it."""
    (code,) = [code for code in re.findall(r'```python\n(.*?)```', TRAINING, re.S) if 'CustomDataset' in code]
    assert len(code.splitlines()) == 10
    path = tmp_path_factory.mktemp('config') / 'mine.py'
    code = code.replace("'./configs", f"'{REPO}/configs").replace('data/pets', str(image_folder))
    path.write_text(code.replace('num_classes=37', f'num_classes={len(CLASSES)}'))
    return path


@pytest.fixture(scope='module')
def trained(ten_lines, run_tool, tmp_path_factory):
    """T0 after a few epochs on the folder, from a file of 1000 classes."""
    folder = tmp_path_factory.mktemp('trained')
    torch.save(official_state_dict('t0', 'classification', seed=0), folder / 'official.pth')
    options = [f'load_from={folder / "official.pth"}', 'train_cfg.max_epochs=4', 'param_scheduler.T_max=4']
    done = run_tool('train.py', ten_lines, '--work-dir', folder, '--cfg-options', *options, *FAST, *FEW_CLASSES)
    return folder / 'epoch_4.pth', done.stdout


def test_ten_lines_fine_tune_the_official_weights(trained):
    _, log = trained
    assert 'the linear layer keeps its initial weights: the file has 1000 classes, the model 3' in log
    assert 'Checkpoint layout: official classifier. 112 of 114 tensors of ImageClassifier matched. Left out: 2 ' in log
    assert re.search(r'accuracy/top1: [\d.]+', log)


def test_every_layout_is_tested_alike_and_timm_predicts_the_same(trained, ten_lines, run_tool, tmp_path, image_folder):
    predictions = {}
    for layout in ('mm', 'official', 'timm'):
        file = tmp_path / f'{layout}.pth'
        convert_checkpoint(str(trained[0]), str(file), layout, strip_optimizer=True)
        out = tmp_path / f'{layout}.pkl'
        arguments = [ten_lines, file, '--out', out, '--work-dir', tmp_path / layout]
        done = run_tool('test.py', *arguments, '--cfg-options', *FAST, *FEW_CLASSES)
        assert f'Checkpoint layout: {layout} classifier. 114 of 114 tensors of ImageClassifier matched.' in done.stdout
        predictions[layout] = torch.stack([p['pred_score'] for p in pickle.loads(out.read_bytes())])
    assert torch.equal(predictions['mm'], predictions['official'])
    assert torch.equal(predictions['mm'], predictions['timm'])

    model = timm.create_model('fasternet_t0', num_classes=3, checkpoint_path=str(tmp_path / 'timm.pth')).eval()
    preprocess = create_transform((3, 224, 224), interpolation='bicubic', crop_pct=0.9)
    images = torch.stack([preprocess(Image.open(path)) for path in sorted((image_folder / 'val').rglob('*.png'))])
    with torch.no_grad():
        torch.testing.assert_close(model(images).softmax(1), predictions['mm'], atol=1e-5, rtol=0)


def test_resuming_takes_the_checkpoint_back(trained, ten_lines, run_tool, tmp_path):
    options = ['load_from=None', 'train_cfg.max_epochs=5', 'param_scheduler.T_max=5']
    arguments = [ten_lines, '--resume', trained[0], '--work-dir', tmp_path]
    log = run_tool('train.py', *arguments, '--cfg-options', *options, *FAST, *FEW_CLASSES).stdout
    assert 'resumed epoch: 4, iter: 4' in log and 'Epoch(train) [1]' not in log
    assert (tmp_path / 'epoch_5.pth').exists()


def test_resuming_where_nothing_is_to_resume_starts_from_the_pretrained_weights(trained, ten_lines, run_tool, tmp_path):
    options = [f'load_from={trained[0].parent / "official.pth"}', 'train_cfg.max_epochs=1']
    arguments = [ten_lines, '--resume', '--work-dir', tmp_path]
    log = run_tool('train.py', *arguments, '--cfg-options', *options, *FAST, *FEW_CLASSES).stdout
    assert 'Checkpoint layout: official classifier.' in log and 'Epoch(train) [1]' in log


def test_the_documented_layer_wise_decay(ten_lines, run_tool, trained, tmp_path):
    (line,) = re.findall(r'`(optim_wrapper = dict\(constructor=.*?\)\))`', TRAINING)
    config = tmp_path / 'decay.py'
    config.write_text(f'_base_ = {str(ten_lines)!r}\n{line}\n')
    options = [f'load_from={trained[0]}', 'train_cfg.max_epochs=1']
    run_tool('train.py', config, '--work-dir', tmp_path / 'work', '--cfg-options', *options, *FAST, *FEW_CLASSES)
    groups = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)['optimizer']['param_groups']
    scales = {group['param_name']: group['lr_scale'] for group in groups}
    assert scales['head.fc.weight'] == 1 and scales['backbone.patch_embed.proj.weight'] == pytest.approx(0.8**14)


def test_pictures_of_a_classifier_go_below_the_work_dir(trained, ten_lines, run_tool, tmp_path):
    arguments = [ten_lines, trained[0], '--show-dir', 'pictures', '--work-dir', tmp_path]
    run_tool('test.py', *arguments, '--cfg-options', *FAST, *FEW_CLASSES, cwd=tmp_path)
    assert list((tmp_path / 'pictures').iterdir())


@pytest.mark.parametrize(('arch', 'cause'), [('t1', 'another variant: t1'), ('t0', 'a head of another class count')])
def test_a_file_that_does_not_fit_is_one_line(ten_lines, run_tool, tmp_path, arch, cause):
    torch.save(official_state_dict(arch, 'classification', seed=0), tmp_path / 'other.pth')
    options = ['model.head.ignore_mismatched_sizes=False', *FAST]
    line = one_line(run_tool('test.py', ten_lines, tmp_path / 'other.pth', '--cfg-options', *options, check=False))
    assert cause in line and '(layout recognised: official classifier)' in line


def test_testing_never_leaves_a_layer_random(ten_lines, run_tool, tmp_path):
    torch.save(official_state_dict('t0', 'classification', seed=0), tmp_path / 'thousand.pth')
    line = one_line(run_tool('test.py', ten_lines, tmp_path / 'thousand.pth', '--cfg-options', *FAST, check=False))
    assert 'head.fc.weight (1000, 1280), not (3, 1280)' in line


def with_data(config: Config, folder) -> Config:
    for loader, prefix in ((config.train_dataloader, 'train'), (config.val_dataloader, 'val')):
        loader.dataset = dict(type='CustomDataset', data_root=str(folder), data_prefix=prefix)
    return config


@pytest.mark.skipif(torch.cuda.is_available(), reason='with a GPU the recipe runs as it is')
def test_a_half_precision_recipe_without_a_gpu_says_what_to_override(image_folder):
    path = str(REPO / 'configs' / 'fasternet_s_in1k.py')
    with pytest.raises(UserError, match='--cfg-options optim_wrapper.type=OptimWrapper'):
        check_config(with_data(load_config(path), image_folder), 'train')
    check_config(with_data(load_config(path, {'optim_wrapper.type': 'OptimWrapper'}), image_folder), 'train')


def test_an_unknown_name_of_weights_is_found_before_anything_is_built(ten_lines, run_tool, tmp_path):
    options = ['load_from=fasternet://fasternet_x', *FAST]
    done = run_tool('train.py', ten_lines, '--work-dir', tmp_path, '--cfg-options', *options, check=False)
    assert 'fasternet://fasternet_x is none of the official weights' in one_line(done)
