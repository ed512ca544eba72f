# Mask R-CNN 1x on COCO, what the paper's table 7 has in common for S, M and L: batch 16 (8 GPUs x 2), shorter side 800
# and longer side at most 1333, AdamW with weight decay 1e-4, 12 epochs with steps at 8 and 11, 500 iterations of
# linear warm-up, no gradient clipping. Resize, flip, schedule and warm-up are what mmdet's bases already have.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    './det_runtime.py',
]

# BN trains, nothing is frozen, and each output has a norm of its own, as in the official code (not in table 7).
model = dict(backbone=dict(_delete_=True, type='FasterNet', out_norm=True))

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, weight_decay=1e-4))

auto_scale_lr = dict(base_batch_size=16)
