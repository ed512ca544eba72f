# mmdet's runtime, and what ours adds to it.
_base_ = ['mmdet::_base_/default_runtime.py', './runtime.py']

default_hooks = dict(checkpoint=_base_.checkpoint_hook)
custom_hooks = _base_.run_hooks
