# Table 6, FasterNet-T0: batch 4096, learning rate 0.004, weight decay 0.005, drop path 0, Mixup 0.05,
# no RandAugment. The authors report top-1 71.9 (table 3).
_base_ = './_base_/fasternet_in1k.py'

model = dict(
    backbone=dict(arch='t0', drop_path_rate=0.0),
    head=dict(in_channels=320, act_cfg=dict(type='GELU')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.05), dict(type='CutMix', alpha=1.0)]),
)

optim_wrapper = dict(optimizer=dict(weight_decay=0.005))

# both pipelines, without RandAugment
train_pipeline = [_base_.load_image, _base_.crop_192, _base_.flip, _base_.pack]
late_pipeline = [_base_.load_image, _base_.crop_224, _base_.flip, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
late_recipe = dict(_base_.late_recipe, train_pipeline=late_pipeline)
custom_hooks = [*_base_.run_hooks, dict(type='SwitchRecipeHook', schedule=[late_recipe])]
