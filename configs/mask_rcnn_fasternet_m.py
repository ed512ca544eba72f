# Table 7, FasterNet-M: learning rate 1e-4, drop path 0.2. The authors report box AP 43.0, mask AP 39.1 (table 4).
_base_ = './_base_/mask_rcnn_fasternet_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='m',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='fasternet://fasternet_m'),
    ),
    neck=dict(in_channels=[144, 288, 576, 1152]),
)

optim_wrapper = dict(optimizer=dict(lr=1e-4))
