# Table 6, FasterNet-S: batch 4096, learning rate 0.004, weight decay 0.03, drop path 0.1, Mixup 0.3,
# RandAugment 7. The authors report top-1 81.3 (table 3).
_base_ = './_base_/fasternet_in1k.py'

model = dict(
    backbone=dict(arch='s', drop_path_rate=0.1),
    head=dict(in_channels=1024),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.3), dict(type='CutMix', alpha=1.0)]),
)

optim_wrapper = dict(optimizer=dict(weight_decay=0.03))
