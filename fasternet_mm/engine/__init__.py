"""What a training run lacks in mmengine: exact resume, checkpoints that survive a kill, and clear errors."""

from .checkpoint_hook import AtomicCheckpointHook
from .exact_resume_hook import ExactResumeHook

__all__ = ['AtomicCheckpointHook', 'ExactResumeHook']
