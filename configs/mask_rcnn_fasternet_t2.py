# Ours, not in the paper: table 7's recipe for S on a smaller backbone, without drop path.
_base_ = './_base_/mask_rcnn_fasternet_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='t2',
        init_cfg=dict(type='Pretrained', checkpoint='fasternet://fasternet_t2'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
