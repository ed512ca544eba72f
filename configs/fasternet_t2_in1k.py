# Table 6, FasterNet-T2: batch 4096, learning rate 0.004, weight decay 0.02, drop path 0.05, Mixup 0.1,
# RandAugment 5. The authors report top-1 78.9 (table 3).
_base_ = './_base_/fasternet_in1k.py'

model = dict(
    backbone=dict(arch='t2', drop_path_rate=0.05),
    head=dict(in_channels=768),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=1.0)]),
)

optim_wrapper = dict(optimizer=dict(weight_decay=0.02))

# both pipelines, with their own RandAugment
rand_augment = dict(_base_.rand_augment, magnitude_level=5)
train_pipeline = [_base_.load_image, _base_.crop_192, _base_.flip, rand_augment, _base_.pack]
late_pipeline = [_base_.load_image, _base_.crop_224, _base_.flip, rand_augment, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
late_recipe = dict(_base_.late_recipe, train_pipeline=late_pipeline)
custom_hooks = [*_base_.run_hooks, dict(type='SwitchRecipeHook', schedule=[late_recipe])]
