# Table 6, FasterNet-L: batch 2048, learning rate 0.002, weight decay 0.05, drop path 0.3, Mixup 0.7,
# RandAugment 7, gradients clipped at 0.01. The authors report top-1 83.5 (table 3).
_base_ = './_base_/fasternet_in1k.py'

model = dict(
    backbone=dict(arch='l', drop_path_rate=0.3),
    head=dict(in_channels=1536),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.7), dict(type='CutMix', alpha=1.0)]),
)

train_dataloader = dict(batch_size=256)
auto_scale_lr = dict(base_batch_size=2048)
optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=0.05), clip_grad=dict(max_norm=0.01))
param_scheduler = [dict(_base_.warm_up, start_factor=1e-6 / 2e-3), _base_.cosine]
