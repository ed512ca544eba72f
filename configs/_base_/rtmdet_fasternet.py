# What our RTMDets have in place of parts of mmdet's. It stands beside a config of mmdet's; the leaf puts it in by name.
_base_ = './runtime.py'

# as the ImageNet weights want the pixels; mmdet's RTMDet takes them in BGR order
pixels = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
# strides 8, 16 and 32; nothing is frozen, BN trains, and each output has a norm of its own, as in our Mask R-CNNs
backbone = dict(_delete_=True, type='FasterNet', out_indices=(1, 2, 3), out_norm=True)
