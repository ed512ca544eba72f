# Table 7, FasterNet-S: learning rate 2e-4, drop path 0.15. The authors report box AP 39.9, mask AP 36.9 (table 4).
_base_ = './_base_/mask_rcnn_fasternet_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='s',
        drop_path_rate=0.15,
        init_cfg=dict(type='Pretrained', checkpoint='fasternet://fasternet_s'),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
