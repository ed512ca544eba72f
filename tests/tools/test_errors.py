"""A wrong input gives one clear line and a status other than 0, before any long work."""

import pytest
import torch
from mmengine.config import Config
from torchvision.models import resnet18

from fasternet_mm import FasterNet
from fasternet_mm.engine.preflight import check_config
from fasternet_mm.errors import UserError
from tests.helpers import REPO, one_line


@pytest.mark.parametrize('tool', [['train.py'], ['test.py', 'x.pth']])
def test_a_config_that_does_not_exist(run_tool, tool):
    done = run_tool(tool[0], 'configs/nothing.py', *tool[1:], check=False, process=True)
    assert one_line(done) == f'{tool[0]}: error: config not found: configs/nothing.py'


def test_a_config_with_a_mistake(run_tool, tmp_path):
    (tmp_path / 'broken.py').write_text('model = dict(')
    line = one_line(run_tool('train.py', tmp_path / 'broken.py', check=False))
    assert 'broken.py cannot be read: ' in line and 'was never closed' in line


@pytest.mark.parametrize('tool', [['train.py'], ['test.py', 'x.pth']])
def test_a_missing_dataset(run_tool, tool, tmp_path):
    config = REPO / 'configs' / 'mask_rcnn_fasternet_s.py'
    done = run_tool(tool[0], config, *tool[1:], check=False, cwd=tmp_path)
    line = one_line(done)
    assert 'dataset not found: data/coco/' in line and '_dataloader.dataset.data_root' in line
    assert '--cfg-options' in line
    assert 'Epoch' not in done.stdout and 'init_cfg' not in done.stdout


def test_a_missing_sample_set_says_how_to_draw_it(run_tool, tmp_path):
    config = REPO / 'configs' / 'mask_rcnn_fasternet_t0_sample.py'
    assert 'python tools/make_sample.py' in one_line(run_tool('train.py', config, check=False, cwd=tmp_path))


def test_an_unknown_arch(run_tool, tiny_config):
    config = tiny_config(extra="model['backbone']['arch'] = dict(_delete_=True, depths=(1,))\n")
    assert 'arch of FasterNet must be a name or a dict' in one_line(run_tool('train.py', config, check=False))
    config = tiny_config(extra="model['backbone']['arch'] = 'xl'\n")
    line = one_line(run_tool('train.py', config, check=False))
    assert "unknown arch 'xl' of FasterNet; choose from t0, t1, t2, s, m, l" in line


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.backbone.out_indices=(0,7)', 'out_indices must be stages from 0 to 3'),
        ('model.backbone.n_div=0', 'n_div must be from 1'),
        ('model.backbone.width=3', "unexpected keyword argument 'width'"),
        ('work_dir=3', 'work_dir must be a path, but is 3'),
        ('foo', "expected key=value, but got 'foo'"),
    ],
)
def test_settings_that_cannot_be(run_tool, tiny_config, option, message):
    assert message in one_line(run_tool('train.py', tiny_config(), '--cfg-options', option, check=False))


@pytest.mark.parametrize('content', [torch.zeros(2), {'state_dict': None}], ids=['tensor', 'none'])
def test_a_file_without_weights(run_tool, tiny_config, tmp_path, content):
    torch.save(content, tmp_path / 'odd.pth')
    line = one_line(run_tool('test.py', tiny_config(), tmp_path / 'odd.pth', check=False))
    assert 'holds no state_dict' in line


def test_a_checkpoint_of_another_class_count(run_tool, tiny_config, trained_detector):
    heads = "model['roi_head'] = dict(bbox_head=dict(num_classes=5), mask_head=dict(num_classes=5))\n"
    config = tiny_config('five', extra=heads)
    for tool in ('test.py', 'draw_detections.py'):
        line = one_line(run_tool(tool, config, trained_detector[1], check=False))
        assert 'it is a file of another variant or class count' in line and 'bbox_head.fc_cls.weight' in line


@pytest.mark.parametrize('arguments', [('--out', 'x.xyz'), ('--num-images', 0)])
def test_a_picture_that_cannot_be_drawn(run_tool, tiny_config, arguments):
    line = one_line(run_tool('draw_detections.py', tiny_config(), 'x.pth', *arguments, check=False))
    assert str(arguments[1]) in line


def test_data_that_fetches_itself_or_is_remote_need_not_be_here():
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            test_dataloader=dict(dataset=dict(type='CIFAR10', data_root='not/here')),
            train_dataloader=dict(dataset=dict(type='ImageNet', data_root='not/here', backend_args=dict(backend='x'))),
        )
    )
    check_config(cfg, 'test')
    check_config(cfg, 'train')
    cfg.test_dataloader.dataset.download = False
    with pytest.raises(UserError, match='dataset not found: not/here'):
        check_config(cfg, 'test')


def test_a_checkpoint_of_another_model(run_tool, tiny_config, tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / 'other.pth')
    line = one_line(run_tool('test.py', tiny_config(), tmp_path / 'other.pth', check=False))
    assert 'it is a file of another model' in line and '(layout recognised: unrecognised model)' in line


def test_a_classification_file_where_a_whole_detector_is_needed(run_tool, tiny_config, tmp_path, tiny):
    tiny['arch']['depths'] = (1, 1, 2, 1)
    torch.save(FasterNet(**tiny).state_dict(), tmp_path / 'backbone.pth')
    line = one_line(run_tool('test.py', tiny_config(), tmp_path / 'backbone.pth', check=False))
    assert 'does not fit MaskRCNN' in line and 'it is a file without neck, roi_head, rpn_head' in line
    assert '(layout recognised: official backbone)' in line


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_a_checkpoint_that_is_not_there(run_tool, tiny_config, tool):
    options = ['--resume', 'nowhere.pth'] if tool == 'train.py' else ['nowhere.pth']
    line = one_line(run_tool(tool, tiny_config(), *options, check=False))
    assert 'checkpoint not found: nowhere.pth' in line


def test_pretrained_weights_that_are_not_there(run_tool, tiny_config):
    config = tiny_config(extra="model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='nowhere.pth')\n")
    assert 'checkpoint not found: nowhere.pth' in one_line(run_tool('train.py', config, check=False))


def test_launcher_pytorch_without_torchrun(run_tool, tiny_config):
    line = one_line(run_tool('train.py', tiny_config(), '--launcher', 'pytorch', check=False))
    assert '--launcher pytorch is for processes that torchrun starts' in line and 'tools/dist_train.sh' in line


@pytest.mark.skipif(torch.cuda.is_available(), reason='mixed precision works on this machine')
def test_amp_without_a_gpu(run_tool, tiny_config):
    line = one_line(run_tool('train.py', tiny_config(), '--amp', check=False))
    assert 'mixed precision (AmpOptimWrapper) needs a GPU' in line


def test_auto_scale_lr_without_a_base(run_tool, tiny_config):
    config = tiny_config(extra='auto_scale_lr = dict(_delete_=True)\n')
    line = one_line(run_tool('train.py', config, '--auto-scale-lr', check=False))
    assert '--auto-scale-lr needs auto_scale_lr.base_batch_size in the config' in line


def test_out_must_be_a_pickle(run_tool, tiny_config):
    line = one_line(run_tool('test.py', tiny_config(), 'x.pth', '--out', 'results.json', check=False))
    assert '--out must end in .pkl or .pickle' in line
