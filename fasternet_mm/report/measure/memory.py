"""What a call takes of memory: of CUDA's allocator, of the process, or of tensors."""

import ctypes
import gc
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch


def release(device: torch.device) -> None:
    """Give back what is not in use: to the GPU, or to the system."""
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.empty_cache()
    else:
        with suppress(OSError, AttributeError):  # glibc keeps what is freed
            ctypes.CDLL(None).malloc_trim(0)


def held(device: torch.device) -> int:
    """Return the bytes that are in use now: of CUDA's allocator, or resident in this process (0 if unknown)."""
    if device.type == 'cuda':
        return torch.cuda.memory_allocated(device)
    return _of_process('VmRSS') or 0


def _of_process(field: str) -> int | None:
    status = Path('/proc/self/status')
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def can_count_tensors() -> bool:
    """Return whether torch has its memory tracker, which is private, for :func:`peak_of_tensors`."""
    return importlib.util.find_spec('torch.distributed._tools.mem_tracker') is not None


def peak_of_tensors(call: Callable[[int], object], owners: Sequence) -> int:
    """Return the most bytes of tensors that lived at once during one call, those of `owners` included, say weights."""
    from torch.distributed._tools.mem_tracker import MemTracker

    tracker = MemTracker()
    tracker.track_external(*owners)
    with tracker:
        call(0)
    return max(of['Total'] for of in tracker.get_tracker_snapshot('peak').values())


def peak_memory(call: Callable[[int], object], device: torch.device, others: int) -> tuple[int | None, str | None]:
    """Return the most bytes during one call, less `others`, and of what: CUDA's allocator, or this process (Linux).

    None where it is not known.
    """
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        call(0)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - others, 'CUDA allocator'
    try:
        Path('/proc/self/clear_refs').write_text('5')  # the peak starts again from what is resident now
    except OSError:
        call(0)
        return None, None
    call(0)
    peak = _of_process('VmHWM') - others
    if peak < 0:  # what others had held was given back meanwhile
        return None, None
    return peak, 'process, less what it held before'
