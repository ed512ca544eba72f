# A run that two CPU cores finish in minutes: RTMDet with T0 from random weights on 400 generated images
# (tools/make_sample.py). For trying things out, not for comparing backbones.
_base_ = './rtmdet_fasternet_t0.py'

data_root = 'data/sample/'
metainfo = dict(classes=('circle', 'square', 'triangle'), palette=[(220, 20, 60), (0, 130, 200), (60, 180, 75)])
size = (192, 192)
norm_cfg = dict(type='BN')  # one process

model = dict(
    # without pretrained weights, a start that learns faster than the official ImageNet one
    backbone=dict(init_cfg=dict(_delete_=True, type='Kaiming', layer='Conv2d')),
    neck=dict(norm_cfg=norm_cfg),
    bbox_head=dict(num_classes=3, norm_cfg=norm_cfg),
    test_cfg=dict(nms_pre=1000, score_thr=0.05, max_per_img=50),
)

# no Mosaic, no MixUp: they are for long runs
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=size, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=size, pad_val=dict(img=(114, 114, 114))),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size, keep_ratio=True),
    dict(type='Pad', size=size, pad_val=dict(img=(114, 114, 114))),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

max_epochs = 15  # of 100 iterations
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs, dynamic_intervals=None)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=1e-5, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=25))
custom_hooks = _base_.run_hooks
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
