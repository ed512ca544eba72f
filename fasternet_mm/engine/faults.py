"""What happens to a run from outside: neither its user's mistake nor ours."""

import errno

import torch

# what a full or failing disk and missing permissions are known by; a file that is not there can be a mistake of ours
_OF_THE_SYSTEM = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE, errno.EBUSY,
}  # fmt: skip


def outside_fault(error: Exception) -> str | None:
    """Return what happened outside the program that made it raise `error`; None where it may be a mistake in it."""
    text, memory = str(error), isinstance(error, (MemoryError, torch.OutOfMemoryError))
    if text.startswith('Caught ') and 'Original Traceback' in text:  # in a data loader's worker; its type may be lost
        memory = memory or text.startswith('Caught MemoryError')
        text = text.splitlines()[-1]
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        return f'{error.strerror}: {error.filename}' if error.filename else error.strerror
    # torch has no types for the next ones
    if isinstance(error, RuntimeError) and text.startswith('DataLoader worker'):
        what = text.splitlines()[0].rstrip('. ')
        return f'{what}; if memory ran out, lower num_workers or batch_size of the dataloader'
    if memory or 'DefaultCPUAllocator' in text:
        return f'out of memory ({text}); smaller batches or images need less'
    if isinstance(error, torch.distributed.DistError) or '/gloo/' in text:
        return f'the processes of this run lost each other: {text}'
    return None
