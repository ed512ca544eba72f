# ImageNet-1k, what the paper's table 6 has in common for all variants, on mmpretrain's bases for Swin. Learning rate,
# drop path, Mixup, RandAugment, clipping, batch and weight decay differ by variant and stand in the leaf configs.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    './cls_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='FasterNet', out_indices=(3,)),
    head=dict(
        type='FasterNetClsHead',
        num_classes=1000,
        # cross-entropy with soft targets
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    # one of the two for each batch, either with probability 0.5
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=1.0)]),
)

# Of mmpretrain's base: no RandomErasing; 192 pixels instead of 224 but for the last 20 epochs. The parts have names, so
# that a leaf config builds both pipelines with one of them changed.
load_image = dict(type='LoadImageFromFile')
crop_192 = dict(type='RandomResizedCrop', scale=192, backend='pillow', interpolation='bicubic')
crop_224 = dict(crop_192, scale=224)
flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
rand_augment = dict(
    type='RandAugment',
    policies='timm_increasing',
    num_policies=2,
    total_level=10,
    magnitude_level=7,
    magnitude_std=0.5,
    hparams=dict(pad_val=[round(x) for x in _base_.bgr_mean], interpolation='bicubic'),
)
pack = dict(type='PackInputs')
train_pipeline = [load_image, crop_192, flip, rand_augment, pack]
late_pipeline = [load_image, crop_224, flip, rand_augment, pack]
# counts from 1: epochs 1 to 280 are without it
late_recipe = dict(action_epoch=281, train_pipeline=late_pipeline)
custom_hooks = [*_base_.run_hooks, dict(type='SwitchRecipeHook', schedule=[late_recipe])]

test_pipeline = [
    load_image,
    # a crop ratio of 0.9 instead of 0.875: 224 / 0.9, rounded down as timm does
    dict(type='ResizeEdge', scale=248, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    pack,
]
# 4096 images on 8 GPUs instead of 1024; M and L have 2048
train_dataloader = dict(batch_size=512, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=4096)

optim_wrapper = dict(
    # fp16, with a dynamic loss scale
    type='AmpOptimWrapper',
    optimizer=dict(lr=4e-3),
    # the official code decays norms and biases, too
    paramwise_cfg=dict(_delete_=True),
)
# warm-up in steps of an epoch instead of an iteration, from a learning rate of 1e-6
warm_up = dict(type='LinearLR', start_factor=1e-6 / 4e-3, by_epoch=True, end=20)
cosine = dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=20, end=300, T_max=280)
param_scheduler = [warm_up, cosine]
