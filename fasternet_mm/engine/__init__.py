"""What a training run lacks in mmengine: exact resume, checkpoints that survive, an end to divergence, clear errors.

In the order in which a run comes to them: ``cli`` (options, and how a tool ends), ``runner`` (from a config to what
runs it), ``preflight`` (before anything is built), ``work_dir`` (one training at a time), ``rehearsal`` (what is built,
tried on one image; it uses ``checks`` and ``samples``), and the hooks. ``explaining`` and ``faults`` put an error into
one line.
"""

from .checkpoint_hook import AtomicCheckpointHook
from .exact_resume_hook import ExactResumeHook
from .finite_loss_hook import FiniteLossHook

__all__ = ['AtomicCheckpointHook', 'ExactResumeHook', 'FiniteLossHook']
