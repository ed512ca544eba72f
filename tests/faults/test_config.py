"""What a config builds is built and tried before the first iteration; what does not work is one line with its key."""

import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

import fasternet_mm
from fasternet_mm import FasterNet
from fasternet_mm.engine import rehearsal
from fasternet_mm.engine.runner import build_runner
from fasternet_mm.errors import UserError
from tests.helpers import one_line

HEAD = 'model__roi_head__bbox_head__'
TRAIN, VAL = 'train_dataloader__', 'val_dataloader__'
UNKNOWN = {
    'model__type': ('MaskRCNNN', "'MaskRCNN'"),
    'model__backbone__type': ('FastrNet', "'FasterNet'"),
    'model__neck__type': ('FPM', "'FPN'"),
    f'{HEAD}loss_cls__type': ('CrossEntropyLos', "'CrossEntropyLoss'"),
    'model__train_cfg__rpn__assigner__type': ('MaxIoUAsigner', "'MaxIoUAssigner'"),
    f'{TRAIN}dataset__type': ('CocoDatset', "'CocoDataset'"),
    f'{TRAIN}sampler__type': ('DefaultSamplr', "'DefaultSampler'"),
    f'{VAL}dataset__type': ('CocoDatset', "'CocoDataset'"),
    'optim_wrapper__type': ('OptimWraper', "'OptimWrapper'"),
    'optim_wrapper__optimizer__type': ('AdamWW', "'AdamW'"),
    'val_evaluator__type': ('CocoMetrics', "'CocoMetric'"),
    'visualizer__type': ('DetLocalVisualiser', "'DetLocalVisualizer'"),
    'default_hooks__timer__type': ('IterTimeHook', "'IterTimerHook'"),
    'train_cfg__type': ('EpochBasedTrainLop', "'EpochBasedTrainLoop'"),
}


@pytest.mark.parametrize('setting', UNKNOWN)
def test_an_unknown_type_is_named_with_its_key_and_the_nearest_one(tiny_run, setting):
    value, nearest = UNKNOWN[setting]
    line = tiny_run.error(**{setting: value})
    assert line.startswith(f'{setting.replace("__", ".")} is {value!r}, but mmdet has no such ')
    assert 'did you mean ' in line and nearest in line


# what is changed; what the error begins with; what else it says
WRONG = {
    'channels of the neck': (
        dict(model__neck__in_channels=[8, 16, 32, 99]),
        "model.neck (type='FPN', in_channels=[8, 16, 32, 99], ",
        'to have 99 channels, but got 64 channels instead; the backbone gives 4 maps of 8, 16, 32, 64 channels',
    ),
    'too few outputs': (
        dict(model__backbone__out_indices=(1, 2, 3)),
        "model.neck (type='FPN', in_channels=[8, 16, 32, 64], ",
        'len(inputs) == len(self.in_channels); the backbone gives 3 maps of 16, 32, 64 channels',
    ),
    'outputs in another order': (
        dict(model__backbone__out_indices=(3, 2, 1, 0)), 'model.neck (', '4 maps of 64, 32, 16, 8 channels'
    ),
    'an argument of the neck': (dict(model__neck__out_chanels=3), 'model.neck (', "argument 'out_chanels'"),
    'channels of the RPN': (dict(model__rpn_head__in_channels=63), 'model.rpn_head (', 'to have 63 channels'),
    'channels of the box head': (
        dict(model__roi_head__bbox_head__in_channels=63), 'model.roi_head.bbox_head (', 'cannot be multiplied'
    ),
    'channels of the mask head': (
        dict(model__roi_head__mask_head__in_channels=63), 'model.roi_head.mask_head (', 'to have 63 channels'
    ),
    'levels of the anchors': (
        dict(model__rpn_head__anchor_generator__strides=[4, 8]), 'model.rpn_head (', 'self.num_levels'
    ),
    'classes of the box head': (
        dict(model__roi_head__bbox_head__num_classes=80),
        "model.roi_head.bbox_head.num_classes is 80, but train_dataloader.dataset has 3 classes: 'circle'", '',
    ),
    'classes of the mask head': (
        dict(model__roi_head__mask_head__num_classes=2), 'model.roi_head.mask_head.num_classes is 2, but', '3 classes'
    ),
    'batch_size': (dict(train_dataloader__batch_size=0), 'train_dataloader.batch_sampler (', 'but got batch_size=0'),
    'num_workers': (dict(train_dataloader__num_workers=-1), 'train_dataloader (', 'num_workers option should be non-'),
    'num_workers of val': (dict(val_dataloader__num_workers=-1), 'val_dataloader (', 'num_workers option'),
    'max_epochs': (dict(train_cfg__max_epochs=0), 'train_cfg.max_epochs must be an int of at least 1, but is 0', ''),
    'a part of an epoch': (dict(train_cfg__max_epochs=1.5), 'train_cfg (', 'max_epochs=1.5'),
    'val_interval': (dict(train_cfg__val_interval=0), 'train_cfg.val_interval must be an int of at least 1', ''),
    'more in a batch than there is': (
        dict(train_dataloader__batch_size=100, train_dataloader__drop_last=True, train_dataloader__batch_sampler=None),
        'train_dataloader yields no batch', 'has 12 images, batch_size is 100, drop_last is True',
    ),
    'a loader that is none': (dict(train_dataloader=3), 'train_dataloader must be a dict, but is 3', ''),
    'a data set that is none': (dict(val_dataloader__dataset=3), 'val_dataloader.dataset must be a dict, but is 3', ''),
    'a schedule that is none': (dict(train_cfg=3), 'train_cfg must be a dict, but is 3', ''),
    'a model that is none': (dict(model=3), 'model must be a dict, but is 3', ''),
    'a checkpoint that is none': (dict(load_from=3), 'checkpoint not found: 3 ', ''),
    'a path that is none': (dict(val_dataloader__dataset__data_root=3), 'val_dataloader.dataset.data_root must be', ''),
    'val_begin': (dict(train_cfg__val_begin='x'), "train_cfg.val_begin must be an int of at least 1, but is 'x'", ''),
    'a log level': (dict(log_level='FOO', experiment_name='new'), "log_level ('FOO') does not work", 'KeyError: FOO'),
    'a hook': (dict(custom_hooks=['x']), "custom_hooks (['x']) does not work", 'should be an instance of Hook or dict'),
    'a hook of the default ones': (dict(default_hooks__new=3), 'default_hooks (', 'should be an instance of Hook'),
    'suppression of boxes': (dict(model__test_cfg__rcnn__nms=3), 'model.roi_head.bbox_head (', 'AttributeError: '),
    'no train_cfg': (dict(train_cfg=None), 'the config has no train_cfg; train_dataloader, ', ''),
    'no val_evaluator': (dict(val_evaluator=None), 'the config has no val_evaluator; val_dataloader, ', ''),
    'a transform': (
        dict(train_dataloader__dataset__pipeline=[dict(type='LoadImageFromFil')]),
        "train_dataloader.dataset.pipeline.0.type is 'LoadImageFromFil'", "did you mean 'LoadImageFromFile'",
    ),
    'an argument of a transform': (
        dict(val_dataloader__dataset__pipeline=[dict(type='LoadImageFromFile', colour=1)]),
        "val_dataloader.dataset.pipeline.0 (type='LoadImageFromFile', colour=1)", "argument 'colour'",
    ),
    'no packing': (
        dict(train_dataloader__dataset__pipeline=[dict(type='LoadImageFromFile')]),
        'train_dataloader.dataset.pipeline does not give', 'MaskRCNN takes it; its last step must be PackDetInputs',
    ),
    'no packing in validation': (
        dict(val_dataloader__dataset__pipeline=[dict(type='LoadImageFromFile')]),
        'val_dataloader.dataset.pipeline does not give', 'PackDetInputs',
    ),
    "another library's packing": (
        dict(train_dataloader__dataset__pipeline=[dict(type='LoadImageFromFile'), dict(type='mmpretrain.PackInputs')]),
        'train_dataloader.dataset.pipeline does not give', 'PackDetInputs',
    ),
    'loading left out': (
        dict(train_dataloader__dataset__pipeline=[dict(type='Resize', scale=8), dict(type='PackDetInputs')]),
        'train_dataloader.dataset: image ', 'Resize: KeyError',
    ),
    'learning rate': (dict(optim_wrapper__optimizer__lr=-1), 'optim_wrapper.optimizer (', 'Invalid learning rate: -1'),
    'a schedule': (
        dict(param_scheduler=[dict(type='MultiStep')]), "param_scheduler.0.type is 'MultiStep'", "'MultiStepLR'"
    ),
    'an argument of a schedule': (
        dict(param_scheduler=[dict(type='MultiStepLR', milestone=[1])]),
        "param_scheduler.0 (type='MultiStepLR', milestone=[1])", "argument 'milestone'",
    ),
    'an argument of the checkpoint hook': (
        dict(default_hooks__checkpoint__intervall=3), "AtomicCheckpointHook has no setting 'intervall'", "'interval'"
    ),
    'a metric': (dict(val_evaluator__metric='box'), "val_evaluator (type='CocoMetric'", 'but got box'),
    'a base batch size': (
        dict(auto_scale_lr__base_batch_size=0, auto_scale_lr__enable=True), 'auto_scale_lr (', 'ZeroDivisionError'
    ),
    'a seed': (dict(randomness__seed='x'), "randomness (seed='x')", 'TypeError'),
    'a start method': (dict(env_cfg__mp_cfg__mp_start_method='frok'), 'env_cfg (', "cannot find context for 'frok'"),
}  # fmt: skip


@pytest.mark.parametrize('case', WRONG)
def test_what_does_not_work_is_named_with_its_key_and_the_cause(tiny_run, case):
    changes, start, told = WRONG[case]
    line = tiny_run.error(**changes)
    assert line.startswith(start) and told in line


# what shows in the first iteration, or the first validation
FIRST = {
    'clipping': (dict(optim_wrapper__clip_grad=dict(max_nrm=3)), "optim_wrapper (type='OptimWrapper'", "'max_nrm'"),
    'a sampler': (dict(model__train_cfg__rcnn__sampler__num='a'), 'model.roi_head (', 'TypeError'),
    'a hook': (dict(custom_hooks=[dict(type='EMAHook', momentum=3)]), 'custom_hooks.0 (', 'momentum must be in range'),
    'what a hook builds': (
        dict(custom_hooks=[dict(type='EMAHook', update_buffer=True)]),
        "custom_hooks.0 (type='EMAHook', update_buffer=True) does not work: ", "argument 'update_buffer' (--traceback",
    ),
    'how often is saved': (
        dict(default_hooks__checkpoint__interval='a'), 'interval of AtomicCheckpointHook must be an int', "is 'a'"
    ),
    'where is saved': (
        dict(default_hooks__checkpoint__out_dir='/proc/x'), 'out_dir of AtomicCheckpointHook, /proc/x/', 'not writable'
    ),
    'the best by no metric': (
        dict(default_hooks__checkpoint=dict(save_best='coco/segm_map', rule='greater')),
        "AtomicCheckpointHook has save_best='coco/segm_map', but the evaluator gives coco/bbox_mAP, ",
        "did you mean 'coco/segm_mAP'",
    ),
    'a metric': (dict(val_evaluator__iou_thrs='a'), "val_evaluator (type='CocoMetric'", "iou_thrs='a') does not work"),
    'what is packed': (
        dict(val_dataloader__dataset__pipeline=[
            dict(type='LoadImageFromFile'), dict(type='PackDetInputs', meta_keys=())
        ]),
        'model.', 'KeyError: img_shape',
    ),
}  # fmt: skip


@pytest.mark.parametrize('case', FIRST)
def test_what_fails_the_first_time_is_named_too(tiny_run, case):
    changes, start, told = FIRST[case]
    cfg = tiny_run.changed(**changes, train_cfg__max_epochs=1, train_cfg__val_interval=1)
    runner = rehearsal.prepare_runner(cfg, 'train')
    with pytest.raises(UserError) as error:
        rehearsal.run(runner, cfg, 'train')
    assert str(error.value).startswith(start) and told in str(error.value)


def test_an_initializer_is_found_before_the_first_iteration(tiny_run):
    cfg = tiny_run.changed(model__backbone__init_cfg__type='Kaimin')
    with pytest.raises(UserError) as error:
        rehearsal.run(rehearsal.prepare_runner(cfg, 'train'), cfg, 'train')
    assert str(error.value).startswith("model.backbone.init_cfg.type is 'Kaimin', but mmdet has no such weight init")


def test_a_classifiers_head_must_take_what_the_backbone_gives(tiny_classifier, tmp_path, image_folder, quick_runner):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=64), dict(type='PackInputs')]
    folder = dict(type='CustomDataset', data_root=str(image_folder), data_prefix='val', pipeline=pipeline)
    cfg = Config(dict(
        default_scope='mmpretrain', work_dir=str(tmp_path), launcher='none', model=tiny_classifier,
        test_dataloader=dict(batch_size=2, dataset=folder, sampler=dict(type='DefaultSampler', shuffle=False)),
        test_cfg=dict(), test_evaluator=dict(type='Accuracy'),
    ))  # fmt: skip
    rehearsal.prepare_runner(cfg, 'test')
    cfg.model.head.in_channels = 63
    with pytest.raises(UserError, match=r'^model.head \(.*the backbone gives 4 maps of 8, 16, 32, 64 channels'):
        rehearsal.prepare_runner(cfg, 'test')
    cfg.model.head.update(in_channels=64, num_classes=4)
    runner = rehearsal.prepare_runner(cfg, 'test')
    with pytest.raises(UserError, match=r'^model.head.num_classes is 4, but test_dataloader.dataset has 3 classes'):
        rehearsal.run(runner, cfg, 'test')


@pytest.fixture(scope='module')
def detector_of():
    """Build the smallest detector with a neck for four maps of 8, 16, 32 and 64 channels."""

    def build(**backbone):
        neck = dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5)
        backbone = dict(type='FasterNet', arch=dict(embed_dims=8, depths=(1, 1, 1, 1)), **backbone)
        head = dict(type='RetinaHead', num_classes=1, in_channels=8, feat_channels=8, stacked_convs=1)
        cfg = Config(dict(model=dict(type='RetinaNet', backbone=backbone, neck=neck, bbox_head=head)))
        with DefaultScope.overwrite_default_scope('mmdet'):
            return MODELS.build(cfg.model), cfg

    return build


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(indices=st.lists(st.integers(-4, 3), min_size=1, max_size=5))
def test_any_out_indices_fit_or_are_an_error_of_the_neck(detector_of, indices):
    model, cfg = detector_of(out_indices=indices)
    if [index % 4 for index in indices] == [0, 1, 2, 3]:
        rehearsal._try(model, torch.zeros(1, 3, 8, 8), cfg, 'train')
        return
    with pytest.raises(UserError, match=r'^model\.neck \('):
        rehearsal._try(model, torch.zeros(1, 3, 8, 8), cfg, 'train')


def test_nothing_is_built_twice_and_no_random_number_is_used_up(tiny_run, monkeypatch):
    def state():
        return random.random(), np.random.rand(), torch.rand(1).item()

    built = []
    build = Runner.build_dataloader
    monkeypatch.setattr(
        Runner, 'build_dataloader', staticmethod(lambda *args, **kw: built.append(1) or build(*args, **kw))
    )
    stock = build_runner(tiny_run.changed())
    rehearsal._build_train(stock)
    expected = state()
    del built[:]
    cfg = tiny_run.changed(train_cfg__max_epochs=1)
    runner = rehearsal.prepare_runner(cfg, 'train')
    assert state() == expected
    loops, optimizer = (runner.train_loop, runner.val_loop), runner.optim_wrapper
    rehearsal.run(runner, cfg, 'train')
    assert len(built) == 2 and (runner.train_loop, runner.val_loop) == loops and runner.optim_wrapper is optimizer


def bug_in(file: str):
    names = {}
    exec(compile('def bug(*args):\n    raise AttributeError("a bug")', file, 'exec'), names)
    return names['bug']


def test_a_programming_error_of_ours_stays_one_and_a_library_s_does_not(tiny_run, monkeypatch):
    monkeypatch.setattr(FasterNet, 'forward', bug_in(fasternet_mm.__file__))
    with pytest.raises(AttributeError, match='a bug'):
        tiny_run.prepare()
    monkeypatch.setattr(FasterNet, 'forward', bug_in(torch.__file__))
    assert tiny_run.error().startswith('model.backbone (')


def test_what_fails_after_the_first_iteration_keeps_its_traceback(tiny_run, monkeypatch):
    cfg = tiny_run.changed()
    runner = rehearsal.prepare_runner(cfg, 'train')
    monkeypatch.setattr(runner, 'train', lambda: runner.call_hook('after_train_iter', batch_idx=0) or bug_in('x')())
    runner._hooks.clear()
    with pytest.raises(AttributeError, match='a bug'):
        rehearsal.run(runner, cfg, 'train')


def test_the_command_line_shows_one_line_or_all_of_it(run_tool, tiny_config, quick_runner):
    config = tiny_config(extra="model['neck'] = dict(out_chanels=3)\n")
    assert one_line(run_tool('train.py', config, check=False)).endswith('(--traceback shows where)')
    done = run_tool('train.py', config, '--traceback', check=False)
    assert done.returncode == 1 and 'Traceback' in done.stderr and 'build_functions.py' in done.stderr


@pytest.mark.parametrize(
    ('option', 'told'),
    [
        ('modle.backbone.arch=s', "sets a new key, as the config has no 'modle'; did you mean 'model'?"),
        ('model.train_cfg.rcnnn.pos_weight=1', "sets a new key, as the config has no 'rcnnn'; did you mean 'rcnn'"),
    ],
)
def test_a_misspelt_option_is_told_in_one_line(run_tool, tiny_config, option, told, quick_runner):
    options = [option, 'train_cfg.max_epochs=0', 'resume=False', 'model.backbone.n_div=4']
    log = run_tool('train.py', tiny_config(), '--cfg-options', *options, check=False).stdout
    (line,) = [line for line in log.splitlines() if 'WARNING' in line]
    assert f'--cfg-options {option.split("=")[0]} {told}' in line
