# RTMDet with FasterNet-T1 at 640 pixels: ours, untrained on COCO. The recipe is mmdet's for RTMDet-s: 300 epochs of
# AdamW at 0.004, cosine decay from epoch 150 on, EMA; Mosaic and MixUp until epoch 280.
_base_ = ['mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py', './_base_/rtmdet_fasternet.py']

model = dict(
    data_preprocessor=_base_.pixels,
    backbone=dict(_base_.backbone, arch='t1', init_cfg=dict(type='Pretrained', checkpoint='fasternet://fasternet_t1')),
    # neck and head are RTMDet-s's own: the maps of T1 are as wide as those of its backbone
)

default_hooks = dict(checkpoint=_base_.checkpoint_hook)
custom_hooks = [*_base_.run_hooks, *_base_.custom_hooks]
# 8 GPUs x 32; mmdet's config has the 16 of another schedule
auto_scale_lr = dict(base_batch_size=256)
