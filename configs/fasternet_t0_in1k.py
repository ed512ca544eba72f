# Table 6, FasterNet-T0: batch 4096, learning rate 0.004, weight decay 0.005, drop path 0, Mixup 0.05,
# no RandAugment. The authors report top-1 71.9 (table 3).
_base_ = './_base_/fasternet_in1k.py'

model = dict(
    backbone=dict(arch='t0', drop_path_rate=0.0),
    head=dict(in_channels=320, act_cfg=dict(type='GELU')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.05), dict(type='CutMix', alpha=1.0)]),
)

optim_wrapper = dict(optimizer=dict(weight_decay=0.005))

# RandAugment, at 192 and at 224 pixels
train_pipeline = _base_.train_dataloader.dataset.pipeline
del train_pipeline[3]
del _base_.custom_hooks[-1].schedule[0].train_pipeline[3]
