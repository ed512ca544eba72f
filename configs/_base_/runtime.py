# What our configs add to the runtime of mmdet and of mmpretrain.
custom_imports = dict(imports=['fasternet_mm'], allow_failed_imports=False)

checkpoint_hook = dict(type='AtomicCheckpointHook', max_keep_ckpts=3)
run_hooks = [
    dict(type='ExactResumeHook'),
    dict(type='FiniteLossHook'),
    # every process trains its own BN statistics; average them before they are saved or evaluated
    dict(type='SyncBuffersHook'),
]
