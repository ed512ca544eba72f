# Ours, not in the paper: table 7's recipe for S on a smaller backbone, without drop path.
_base_ = './_base_/mask_rcnn_fasternet_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='t0',
        init_cfg=dict(type='Pretrained', checkpoint='fasternet://fasternet_t0'),
    ),
    neck=dict(in_channels=[40, 80, 160, 320]),
)
