"""A checkpoint file rewritten in another layout."""

import hashlib
import io
from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader

from ..errors import UserError
from ..files import AtomicLocalBackend
from .layouts import Layout, convert_state_dict
from .loading import safetensors_torch
from .matching import state_dict_of

# what belongs to the optimizer in mmengine's files; the logged scalars go with it
_OPTIMIZER = ('optimizer', 'param_schedulers', 'message_hub')


def convert_checkpoint(src: str, dst: str, to: str, strip_optimizer: bool = False) -> tuple[Layout, Layout, str]:
    """Write the checkpoint `src` to `dst` with its tensors named as in layout `to`, and all else as it was.

    Args:
        src (str): A file, a URL or a name as in :mod:`fasternet_mm.checkpoint.official`.
        dst (str): The file to write; where it ends in .safetensors, tensors alone are kept.
        to (str): 'mm', 'official' or 'timm'.
        strip_optimizer (bool): Leave out the optimizer's state, its schedules and the logged scalars.

    Returns:
        tuple[Layout, Layout, str]: The layouts of `src` and `dst`, and the SHA-256 of `dst` in hexadecimal.

    Raises:
        UserError: If `dst` exists, or cannot be written.
        CheckpointError: As :func:`convert_state_dict`, and if `src` cannot be loaded.
    """
    if Path(dst).exists():
        raise UserError(f'{dst} exists already; remove it, or choose another name')
    checkpoint = CheckpointLoader.load_checkpoint(src, map_location='cpu', logger='silent')
    before = state_dict_of(checkpoint)
    after = convert_state_dict(before, to)
    if 'state_dict' in checkpoint:
        dropped = _OPTIMIZER if strip_optimizer else ()
        checkpoint = {key: value for key, value in checkpoint.items() if key not in dropped} | {'state_dict': after}
        if 'ema_state_dict' in checkpoint:  # mmengine's average: named as a DDP's, and a counter of steps
            average = dict(checkpoint['ema_state_dict'])
            steps = {name: average.pop(name) for name in list(average) if not name.startswith('module.')}
            average = convert_state_dict(state_dict_of(average), to)
            checkpoint['ema_state_dict'] = {f'module.{name}': tensor for name, tensor in average.items()} | steps
    else:
        checkpoint = after
    if Path(dst).suffix == '.safetensors':
        tensors = {name: value for name, value in after.items() if isinstance(value, torch.Tensor)}
        # its format knows neither strides nor shared storage
        tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
        content = safetensors_torch().save(tensors)
    else:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getvalue()
    try:
        AtomicLocalBackend().put(content, dst)
    except OSError as error:
        raise UserError(f'{dst} cannot be written: {error}') from error
    return Layout(before), Layout(after), hashlib.sha256(content).hexdigest()
