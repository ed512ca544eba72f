# Table 6, FasterNet-T2: batch 4096, learning rate 0.004, weight decay 0.02, drop path 0.05, Mixup 0.1,
# RandAugment 5. The authors report top-1 78.9 (table 3).
_base_ = './_base_/fasternet_in1k.py'

model = dict(
    backbone=dict(arch='t2', drop_path_rate=0.05),
    head=dict(in_channels=768),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=1.0)]),
)

optim_wrapper = dict(optimizer=dict(weight_decay=0.02))

# RandAugment, at 192 and at 224 pixels
train_pipeline = _base_.train_dataloader.dataset.pipeline
train_pipeline[3].magnitude_level = 5
_base_.custom_hooks[-1].schedule[0].train_pipeline[3].magnitude_level = 5
