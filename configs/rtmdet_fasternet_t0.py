# RTMDet with FasterNet-T0 at 640 pixels: ours, untrained on COCO. The recipe is mmdet's for RTMDet-tiny: 300 epochs of
# AdamW at 0.004, cosine decay from epoch 150 on, EMA; Mosaic and MixUp until epoch 280.
_base_ = ['mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', './_base_/rtmdet_fasternet.py']

model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(_base_.backbone, arch='t0', init_cfg=dict(type='Pretrained', checkpoint='fasternet://fasternet_t0')),
    # narrower than any of mmdet's, by RTMDet's own rule: neck and head are as wide as the first map
    neck=dict(in_channels=[80, 160, 320], out_channels=80),
    bbox_head=dict(in_channels=80, feat_channels=80),
)

default_hooks = dict(checkpoint=_base_.checkpoint_hook)
custom_hooks = [*_base_.run_hooks, *_base_.custom_hooks]
# 8 GPUs x 32; mmdet's config has the 16 of another schedule
auto_scale_lr = dict(base_batch_size=256)
