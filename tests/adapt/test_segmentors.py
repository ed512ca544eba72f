"""Segmentors of mmseg: what their adaptation says, a step of training, and Semantic FPN learning to a measured mIoU."""

import cv2
import numpy as np
import pytest
from mmengine.config import ConfigDict
from mmengine.runner import Runner

from fasternet_mm.adapt import Adaptation, adapt, leaf_text, read_config, try_out, with_fasternet
from fasternet_mm.adapt.maps import maps_of
from fasternet_mm.adapt.segmentors import head_changes
from fasternet_mm.errors import UserError
from fasternet_mm.models import ProjectedFasterNet
from tests.helpers import needs_mmseg

pytestmark = needs_mmseg
SEMANTIC_FPN = 'mmseg::sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024.py'
FCN = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
DDRNET = 'mmseg::ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py'
MAPS = [40, 80, 160, 320]
EXPECTED = {  # t0: all changes of the model but the backbone's
    SEMANTIC_FPN: dict(pretrained=None, neck=dict(in_channels=MAPS)),
    'mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py': dict(
        pretrained=None, decode_head=dict(in_channels=MAPS), auxiliary_head=dict(in_channels=160)
    ),
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': dict(decode_head=dict(in_channels=MAPS)),
    'mmseg::fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024.py': dict(
        pretrained=None, neck=dict(in_channels=(80, 160, 320)), auxiliary_head=dict(in_channels=160)
    ),
}


@pytest.mark.parametrize('config', EXPECTED)
def test_heads_and_necks_follow_and_nothing_else(config):
    changes = adapt(read_config(config)).changes
    backbone = changes['model'].pop('backbone')
    assert (backbone['type'], backbone['arch'], backbone['out_norm']) == ('FasterNet', 't0', True)
    assert changes['model'] == EXPECTED[config]
    assert set(changes) <= {'custom_imports', 'model'}


HEADS = {  # of a segmentor whose maps have 8, 16, 32 and 64 channels, and 1, 2, 3 and 4 with a FasterNet
    "HRNet's width": (
        dict(in_channels=[8, 16, 32, 64], in_index=(0, 1, 2, 3), channels=120),
        dict(in_channels=[1, 2, 3, 4], channels=10),
    ),
    'some maps, as a tuple': (
        dict(in_channels=(16, 64), in_index=[1, 3], channels=80),
        dict(in_channels=(2, 4), channels=6),
    ),
    'the last map': (dict(in_channels=64, channels=64), dict(in_channels=4)),
    'no convolution': (dict(in_channels=32, in_index=2, channels=32, num_convs=0), dict(in_channels=3, channels=3)),
    'DeepLabV3+': (dict(in_channels=64, in_index=3, c1_in_channels=8), dict(c1_in_channels=1, in_channels=4)),
    'K-Net': (
        dict(kernel_update_head=[dict(in_channels=64)], kernel_generate_head=dict(in_channels=64, in_index=3)),
        dict(kernel_generate_head=dict(in_channels=4)),
    ),
    "not the backbone's": (dict(in_channels=256, in_index=0), {}),
    'no such map': (dict(in_channels=64, in_index=4), {}),
}


@pytest.mark.parametrize('head', HEADS)
def test_what_depended_on_the_maps_that_a_head_takes_follows(head):
    settings, expected = HEADS[head]
    found = head_changes(ConfigDict(decode_head=settings), [8, 16, 32, 64], [1, 2, 3, 4])
    assert found == (dict(decode_head=expected) if expected else {})


def test_heads_in_a_list_follow_each_by_its_map_and_keep_the_rest():
    heads = [dict(type='FCNHead', in_channels=channels, in_index=index) for index, channels in enumerate([8, 16, 99])]
    found = head_changes(ConfigDict(auxiliary_head=heads), [8, 16, 32], [1, 2, 3])['auxiliary_head']
    assert [head['in_channels'] for head in found] == [1, 2, 99] and all(head['type'] == 'FCNHead' for head in found)


def test_long_heads_of_a_list_take_few_lines(tmp_path):
    heads = [dict(type='FCNHead', **{f'setting_{number}': number for number in range(20)})] * 2
    text = leaf_text(FCN, Adaptation(dict(decode_head=heads)), tmp_path / 'leaf.py')
    leaf = {}
    exec(text, leaf)
    assert leaf['decode_head'] == heads
    assert len(text.splitlines()) <= 15 and max(map(len, text.splitlines())) <= 120


def test_dilated_stages_need_a_projection():
    with pytest.raises(UserError, match='2048 channels at stride 8; .*--project makes them'):
        adapt(read_config(FCN))


def test_projected_each_head_sees_what_it_saw_from_the_stage_that_it_was(tmp_path):
    cfg = read_config(FCN)
    adaptation = adapt(cfg, 't2', project=True)
    model = adaptation.changes['model']
    assert set(model) == {'backbone', 'pretrained'} and model['backbone']['stages'] == [0, 1, 2, 3]
    assert maps_of(adaptation.applied(cfg).model.backbone, 'mmseg') == maps_of(cfg.model.backbone, 'mmseg')
    assert len(leaf_text(FCN, adaptation, tmp_path / 'leaf.py').splitlines()) <= 25


@pytest.mark.parametrize(
    'stages, message', [([4], r'stages\[0\] must be from 0 to 3'), ([3, 3], '1 entries, but stages 2')]
)
def test_a_projections_stages_are_checked(stages, message):
    with pytest.raises(ValueError, match=message):
        ProjectedFasterNet(dict(arch='t0'), [8], [8], stages)


@pytest.mark.parametrize('config, project', [(SEMANTIC_FPN, False), (FCN, True), (DDRNET, True)])
def test_it_trains_a_step_and_predicts(config, project):
    """DDRNet gives its head two maps in training and one in prediction; so does what stands for it."""
    trial = try_out(with_fasternet(read_config(config), 't0', project=project), side=64)
    assert trial.losses['loss'] > 0 and trial.predictions == 'a semantic map; a semantic map'


COLOURS = [(90, 90, 90), (40, 60, 200), (200, 90, 30)]  # of the ground, discs and squares


def draw(root, count: int, seed: int) -> None:
    """Write `count` noisy images of a disc and a square each, and their label maps."""
    rng = np.random.default_rng(seed)
    for folder in ('images', 'labels'):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        label = np.zeros((64, 64), np.uint8)
        x, y, u, v = map(int, rng.integers(12, 52, 4))
        cv2.circle(label, (x, y), 12, 1, -1)
        cv2.rectangle(label, (u - 10, v - 10), (u + 10, v + 10), 2, -1)
        image = np.array(COLOURS)[label] + rng.normal(0, 20, (64, 64, 3))
        cv2.imwrite(str(root / 'images' / f'{number}.png'), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(root / 'labels' / f'{number}.png'), label)


def loader(root, batch_size: int, training: bool) -> dict:
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        img_suffix='.png',
        metainfo=dict(classes=('ground', 'disc', 'square'), palette=[list(colour) for colour in COLOURS]),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
    )
    sampler = dict(type='InfiniteSampler' if training else 'DefaultSampler', shuffle=training)
    return dict(batch_size=batch_size, num_workers=0, dataset=dataset, sampler=sampler)


def test_semantic_fpn_learns_a_small_set(tmp_path):
    """By mmseg's own evaluator: all ground would be an mIoU of 27, and all errors alike one of about 20."""
    draw(tmp_path / 'train', 24, seed=0)
    draw(tmp_path / 'val', 12, seed=1)
    cfg = with_fasternet(read_config(SEMANTIC_FPN), 't0', 'none')
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.model.backbone.arch = dict(embed_dims=16, depths=(1, 1, 1, 1))
    cfg.model.neck.update(in_channels=[16, 32, 64, 128], out_channels=32)
    cfg.model.decode_head.update(in_channels=[32] * 4, channels=32, num_classes=3)
    iterations = 40
    cfg.merge_from_dict(
        dict(
            train_cfg=dict(max_iters=iterations, val_interval=iterations),
            optim_wrapper=dict(optimizer=dict(_delete_=True, type='AdamW', lr=4e-3)),
            work_dir=str(tmp_path / 'work'),
            randomness=dict(seed=0),
        )
    )
    cfg.train_dataloader = loader(tmp_path / 'train', 8, training=True)
    cfg.val_dataloader = cfg.test_dataloader = loader(tmp_path / 'val', 4, training=False)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.message_hub.get_scalar('val/mIoU').current() > 60
