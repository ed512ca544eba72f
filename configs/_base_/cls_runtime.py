# mmpretrain's runtime, and what ours adds to it.
_base_ = 'mmpretrain::_base_/default_runtime.py'

custom_imports = dict(imports=['fasternet_mm'], allow_failed_imports=False)

default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3))
custom_hooks = [
    dict(type='ExactResumeHook'),
    # every process trains its own BN statistics; average them before they are saved or evaluated
    dict(type='SyncBuffersHook'),
]
