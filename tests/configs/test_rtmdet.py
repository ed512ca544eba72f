"""What the RTMDet configs build: mmdet's own neck, head and recipe, and what fits our backbone and its weights."""

import re
from functools import cache

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fasternet_mm.checkpoint import official_url
from fasternet_mm.report.measure.counting import count_detector, count_parameters
from tests.configs.test_stock_configs import two_images
from tests.helpers import REPO
from tests.helpers.golden import TABLES

BASES = dict(t0='tiny', t1='s', t2='m')  # mmdet's config of the same recipe
NAMES = [*BASES, 't0_sample']


@cache
def config_of(name: str) -> Config:
    return Config.fromfile(REPO / 'configs' / f'rtmdet_fasternet_{name}.py')


@cache
def build(name: str, device: str = 'meta') -> nn.Module:
    cfg = config_of(name)
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device(device):
        return MODELS.build(cfg.model)


@pytest.fixture(params=BASES.items(), ids=BASES)
def with_mmdets(request, tmp_path) -> tuple[Config, Config]:
    """Our config, and mmdet's."""
    name, base = request.param
    path = tmp_path / 'stock.py'
    path.write_text(f"_base_ = 'mmdet::rtmdet/rtmdet_{base}_8xb32-300e_coco.py'\n")
    return config_of(name), Config.fromfile(path)


def test_the_recipe_is_mmdets(with_mmdets):
    ours, theirs = with_mmdets
    loaders = [f'{split}_{part}' for split in ('val', 'test') for part in ('dataloader', 'evaluator')]
    for key in (
        'train_cfg',
        'optim_wrapper',
        'param_scheduler',
        'train_dataloader',
        *loaders,
        'tta_model',
        'tta_pipeline',
    ):
        assert ours[key] == theirs[key], key
    for key in ('train_cfg', 'test_cfg'):
        assert ours.model[key] == theirs.model[key]
    assert ours.custom_hooks[-2:] == theirs.custom_hooks
    assert ours.default_hooks.checkpoint.interval == theirs.default_hooks.checkpoint.interval
    # the batch that the learning rate is for
    assert ours.auto_scale_lr.base_batch_size == 8 * ours.train_dataloader.batch_size == 256


def test_neck_and_head_are_mmdets(with_mmdets):
    """But for T0, which none of mmdet's is as narrow as."""
    for part in ('neck', 'bbox_head'):
        ours, theirs = ({key: value for key, value in cfg.model[part].items() if 'channels' not in key}
                        for cfg in with_mmdets)  # fmt: skip
        assert ours == theirs
    if with_mmdets[0] is not config_of('t0'):
        for part in ('neck', 'bbox_head'):
            assert with_mmdets[0].model[part] == with_mmdets[1].model[part]


@pytest.mark.parametrize('name', NAMES)
def test_channels_and_strides_fit(name):
    model = build(name)
    image = torch.empty(1, 3, 640, 640, device='meta')
    maps = model.backbone(image)
    width = TABLES['table8_variants'][name[:2]]['width']
    assert [one.shape[1] for one in maps] == [2 * width, 4 * width, 8 * width]
    strides = [stride for stride, _ in model.bbox_head.prior_generator.strides]
    assert [640 // one.shape[-1] for one in model.neck(maps)] == strides == [8, 16, 32]
    # as wide as the first map, as each of mmdet's
    assert model.neck.out_channels == model.bbox_head.in_channels == model.bbox_head.feat_channels == 2 * width


@pytest.mark.parametrize('name', NAMES)
def test_nothing_is_frozen_and_each_output_has_a_norm(name):
    model = build(name).train()
    assert all(p.requires_grad for p in model.parameters())
    norms = {path: norm for path, norm in model.named_modules() if isinstance(norm, _BatchNorm)}
    assert all(norm.training for norm in norms.values())
    assert [path for path in norms if re.fullmatch(r'backbone\.norm\d', path)] == [
        'backbone.norm2', 'backbone.norm4', 'backbone.norm6'
    ]  # fmt: skip
    # as in our Mask R-CNNs: SyncBuffersHook averages these
    assert {type(norm) for path, norm in norms.items() if path.startswith('backbone')} == {nn.BatchNorm2d}


@pytest.mark.parametrize('name', NAMES)
def test_pixels_are_those_of_the_imagenet_weights(name):
    ours = config_of(name).model.data_preprocessor
    classifier = Config.fromfile(REPO / 'configs' / 'fasternet_t0_in1k.py').data_preprocessor
    assert (ours.mean, ours.std) == (classifier.mean, classifier.std)
    assert ours.bgr_to_rgb and classifier.to_rgb


@pytest.mark.parametrize('name', BASES)
def test_pretrained_weights_are_the_official_files(name):
    init_cfg = config_of(name).model.backbone.init_cfg
    file = TABLES['official_weights']['classification'][name]
    assert init_cfg.type == 'Pretrained'
    assert official_url(init_cfg.checkpoint) == f'https://github.com/JierunChen/FasterNet/releases/download/v1.0/{file}'


@pytest.mark.parametrize('name', NAMES)
def test_a_training_step_and_a_prediction(name):
    torch.manual_seed(0)
    model = build(name, 'cpu').train()
    data = two_images()
    for sample in data['data_samples']:
        del sample.gt_instances.masks  # of which RTMDet's assigner wants another form
        sample.gt_instances.labels %= model.bbox_head.num_classes
    loss, losses = model.parse_losses(model(**model.data_preprocessor(data, training=True), mode='loss'))
    loss.backward()
    assert losses['loss_cls'] > 0 and losses['loss_bbox'] > 0 and loss.isfinite()
    assert [path for path, p in model.named_parameters() if p.grad is None] == []
    predictions = model.eval().test_step(two_images())
    assert len(predictions) == 2 and predictions[0].pred_instances.bboxes.shape[1] == 4


def test_multiply_adds_and_parameters_are_those_of_the_docs(tmp_path):
    stock = tmp_path / 'stock.py'
    stock.write_text("_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\n")
    page = (REPO / 'docs' / 'training.md').read_text()
    rows = re.findall(r'^\| (.*) \| (\d+) x (\d+) \| ([\d.]+) M \| ([\d. |]+) \|$', page, re.M)
    assert len(rows) == 5
    for name, height, width, parameters, parts in rows:
        link = re.search(r'\((.*)\)', name)
        cfg = Config.fromfile(REPO / 'docs' / link.group(1) if link else stock)
        with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
            model = MODELS.build(cfg.model).eval()
        counted = count_detector(model, (int(height), int(width)))
        backbone, neck = counted.parts['backbone'], counted.parts['neck']
        want = [backbone, neck, counted.total - backbone - neck, counted.total]
        assert parts.split(' | ') == [f'{number / 1e9:.2f}' for number in want]
        assert parameters == f'{count_parameters(model) / 1e6:.2f}'


# of the sample


def test_the_samples_classes_and_sizes():
    cfg = config_of('t0_sample')
    assert cfg.model.bbox_head.num_classes == len(cfg.metainfo.classes) == 3
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.metainfo == cfg.metainfo
        sizes = [
            step.get('scale') or step.get('size') for step in loader.dataset.pipeline if step.type in ('Resize', 'Pad')
        ]
        assert sizes == [(192, 192)] * 2
    assert cfg.randomness.seed == 0 and 'init_cfg' in cfg.model.backbone
    assert cfg.model.backbone.init_cfg.type == 'Kaiming'


def train_and_test(run_tool, name: str, sample, work, **settings) -> tuple[str, str]:
    """Train for an epoch or more on the tests' data and evaluate the last checkpoint; what either printed."""
    config = REPO / 'configs' / f'rtmdet_fasternet_{name}.py'
    data = {'model.test_cfg.score_thr': 0.0}  # so that an untrained one finds something
    for split, ann_file in dict(train='train', val='val', test='val').items():
        loader, file = f'{split}_dataloader', f'annotations/instances_{ann_file}.json'
        data |= {f'{loader}.num_workers': 0, f'{loader}.persistent_workers': False, f'{loader}.batch_size': 2}
        data |= {f'{loader}.dataset.data_root': sample, f'{loader}.dataset.ann_file': file}
        data |= {f'{loader}.dataset.data_prefix.img': f'{ann_file}/'}
        data |= {f'{loader}.dataset.metainfo.classes': "('circle','square','triangle')"}
        if split != 'train':
            data[f'{split}_evaluator.ann_file'] = sample / file
    options = ['--work-dir', work, '--cfg-options', *(f'{key}={value}' for key, value in (data | settings).items())]
    epochs = settings['train_cfg.max_epochs']
    trained = run_tool('train.py', config, *options)
    tested = run_tool('test.py', config, work / f'epoch_{epochs}.pth', *options)
    return trained.stdout, tested.stdout


def aps(text: str) -> str:
    return re.findall(r'bbox_mAP_copypaste: (.*)', text)[-1]


def test_the_sample_config_trains_and_tests(sample, run_tool, tmp_path):
    settings = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1}
    trained, tested = train_and_test(run_tool, 't0_sample', sample, tmp_path, **settings)
    assert aps(trained) == aps(tested)


def test_the_recipe_trains_and_tests(sample, run_tool, tmp_path):
    """Mosaic and MixUp, the switch to the pipeline without, and the mean of the weights, which is what is saved."""
    first, last = 'train_dataloader.dataset.pipeline', 'custom_hooks.4'
    sides = {f'{first}.{step}': 64 for step in ('2.img_scale', '4.crop_size', '7.size', '8.img_scale')}
    sides |= {f'{first}.3.scale': 128}
    sides |= {f'{last}.switch_pipeline.{step}': 64 for step in ('2.scale', '3.crop_size', '6.size')}
    for split in ('val', 'test'):
        sides |= {f'{split}_dataloader.dataset.pipeline.{step}': 64 for step in ('1.scale', '2.size')}
    settings = {
        'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 2, f'{last}.switch_epoch': 1,
        'param_scheduler.1.begin': 1, 'param_scheduler.1.end': 2, 'param_scheduler.1.T_max': 1,
        'default_hooks.checkpoint.interval': 1,
        'model.bbox_head.num_classes': 3, 'model.backbone.init_cfg': None,
    } | {key: f'({side},{side})' for key, side in sides.items()}  # fmt: skip
    trained, tested = train_and_test(run_tool, 't0', sample, tmp_path, **settings)
    assert 'Switch pipeline now!' in trained
    assert aps(trained) == aps(tested)
    saved = torch.load(tmp_path / 'epoch_2.pth', map_location='cpu')
    key = 'backbone.patch_embed.proj.weight'
    assert not torch.equal(saved['state_dict'][key], saved['ema_state_dict'][f'module.{key}'])
