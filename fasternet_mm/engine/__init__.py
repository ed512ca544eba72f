"""What a training run lacks in mmengine: exact resume, checkpoints that survive, an end to divergence, clear errors."""

from .checkpoint_hook import AtomicCheckpointHook
from .exact_resume_hook import ExactResumeHook
from .finite_loss_hook import FiniteLossHook

__all__ = ['AtomicCheckpointHook', 'ExactResumeHook', 'FiniteLossHook']
