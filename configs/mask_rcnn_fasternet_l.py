# Table 7, FasterNet-L: learning rate 1e-4, drop path 0.3. The authors report box AP 44.0, mask AP 39.9 (table 4).
_base_ = './_base_/mask_rcnn_fasternet_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='l',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='fasternet://fasternet_l'),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)

optim_wrapper = dict(optimizer=dict(lr=1e-4))
