"""The functions behind ``mmcv.ops``, by purpose, in torchvision and plain PyTorch.

Signatures are those of mmcv 2.1's compiled ``mmcv._ext``, and all but ``nms``, ``softnms``, ``nms_match`` and
``ms_deform_attn_forward`` write into the arguments that ``mmcv.ops`` allocates for their results. Half precision is
computed in float32 and rounded once, on every device.
"""
