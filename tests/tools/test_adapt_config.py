"""The leaf that tools/adapt_config.py writes is short, is read by stock mm, and says what with_fasternet gives."""

import importlib.util

import pytest
from mmengine.config import Config

from fasternet_mm.adapt import adapt, leaf_text, read_config, with_fasternet
from tests.helpers import needs_mmseg, one_line

RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
CONFIGS = [
    RETINANET,
    'mmdet::dyhead/atss_r50_fpn_dyhead_1x_coco.py',
    'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
    'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    'mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py',
    'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    pytest.param('mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py', marks=needs_mmseg),
]


def plain(value):
    """Return a setting without the scopes that mmengine notes where a config inherits from a library's."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if key != '_scope_'}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize('config', CONFIGS)
def test_a_leaf_reads_as_what_python_gives(config, tmp_path):
    cfg = read_config(config)
    adaptation = adapt(cfg, 't2')
    path = tmp_path / 'leaf.py'
    path.write_text(leaf_text(config, adaptation, path))
    assert len(path.read_text().splitlines()) <= 25
    leaf = Config.fromfile(path)
    expected = adaptation.applied(cfg)
    for key in set(leaf) | set(expected) - {'work_dir', 'launcher'}:
        assert plain(leaf.get(key)) == plain(expected.get(key)), key


def test_it_writes_next_to_a_config_that_is_a_path(run_tool, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'base.py').write_text(f'_base_ = {RETINANET!r}\n')
    done = run_tool('adapt_config.py', 'mine/base.py', '--arch', 't1', '--out', 'new/leaf.py', cwd=tmp_path)
    assert done.stdout.endswith('-> new/leaf.py\n')
    assert "_base_ = '../mine/base.py'" in (tmp_path / 'new' / 'leaf.py').read_text()
    model = Config.fromfile(tmp_path / 'new' / 'leaf.py').model
    assert plain(model) == plain(with_fasternet(read_config(RETINANET), 't1').model)


def test_the_default_name_says_config_and_arch(run_tool, tmp_path):
    run_tool('adapt_config.py', RETINANET, '--arch', 't0', '--checkpoint', 'none', cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['retinanet_r50_fpn_1x_coco_fasternet-t0.py']


def test_check_trains_a_step_and_predicts(run_tool, tmp_path):
    done = run_tool('adapt_config.py', RETINANET, '--arch', 't0', '--check', cwd=tmp_path)
    assert 'one training step: loss ' in done.stdout and 'loss_bbox' in done.stdout
    assert 'predictions: ' in done.stdout and 'detections; ' in done.stdout


def test_an_existing_file_is_never_overwritten(run_tool, tmp_path):
    (tmp_path / 'leaf.py').write_text('mine')
    done = run_tool('adapt_config.py', RETINANET, '--arch', 't0', '--out', 'leaf.py', check=False, cwd=tmp_path)
    assert one_line(done) == 'adapt_config.py: error: --out leaf.py exists; remove it or choose another name'
    assert (tmp_path / 'leaf.py').read_text() == 'mine'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['mmdet::retinanet/retinanet_r50_fpn_1x.py'], "did you mean 'retinanet/retinanet_r50_fpn_1x_coco.py'"),
        (['mmdett::a/b.py'], "'mmdett' must be one of mmdet, mmpretrain, mmseg; did you mean 'mmdet'"),
        (['nothing.py'], 'config not found: nothing.py'),
        (['mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py'], 'num_branch'),
        ([RETINANET, '--checkpoint', 'gone.pth'], 'gone.pth'),
        ([RETINANET, '--out', 'leaf.txt'], '--out leaf.txt must end in .py'),
    ],
)
def test_what_is_refused_writes_nothing(run_tool, tmp_path, arguments, message):
    done = run_tool('adapt_config.py', *arguments, '--arch', 't0', check=False, cwd=tmp_path)
    assert message in one_line(done)
    assert list(tmp_path.iterdir()) == []


def test_configs_of_a_library_that_is_not_installed(run_tool, tmp_path):
    if importlib.util.find_spec('mmseg') is None:
        done = run_tool('adapt_config.py', 'mmseg::fcn/a.py', '--arch', 't0', check=False, cwd=tmp_path)
        assert 'MMSegmentation, which is not installed here' in one_line(done)
