"""mmengine's checkpoint loaders for local files and URLs, with errors that say what to do."""

import io
import os
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier
from mmengine.runner import CheckpointLoader

from ..errors import CheckpointError


class DamagedCheckpointError(CheckpointError):
    """A file that is no checkpoint, or no longer one."""


def register_loaders() -> None:
    """Take over local paths and http(s) URLs in mmengine's CheckpointLoader.

    Every way to load a checkpoint comes through it: init_cfg, load_from, resume, ``tools/test.py``, DetInferencer.
    """
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)


def load_from_local(filename: str, map_location=None):
    """Load a local file with torch's own safety default (``weights_only=True`` since torch 2.6).

    Raises:
        CheckpointError: If there is no such file, if it is damaged, or if loading it would run code.
    """
    path = Path(filename).expanduser()
    require_file(filename)
    try:
        return torch.load(path, map_location=map_location)
    except torch.cuda.OutOfMemoryError:
        raise
    except pickle.UnpicklingError as error:
        suspects = _globals_of(path)
        if suspects is None:
            raise DamagedCheckpointError(f'{filename} is damaged or not a PyTorch checkpoint') from error
        named = re.search(r'GLOBAL (\S+)', str(error))
        suspects = [named.group(1)] if named else suspects
        if not suspects:
            raise CheckpointError(
                f'{filename} was refused: it holds plain data, but in a pickle format that torch does not check; write '
                "it again with torch.save's default pickle_protocol"
            ) from error
        raise CheckpointError(
            f'{filename} was refused: loading it would call {suspects[0]}, which is not needed to hold weights and '
            'could run any code. If you trust its author, load it once in Python with '
            "torch.load(..., weights_only=False) and save its 'state_dict' alone."
        ) from error
    except Exception as error:  # a truncated or altered file can raise anything
        if 'CUDA' in str(error):
            raise
        raise DamagedCheckpointError(
            f'{filename} is damaged or not a PyTorch checkpoint ({_first_line(error)})'
        ) from error


def require_file(filename: str) -> None:
    """Raise CheckpointError where the local file `filename` does not exist."""
    if not Path(filename).expanduser().is_file():
        raise CheckpointError(f'checkpoint not found: {filename} (give the path of a .pth file or a URL)')


def load_from_http(filename: str, map_location=None, model_dir: str | None = None):
    """Download a URL once into torch's hub cache, with a progress bar, and load it as a local file.

    Raises:
        CheckpointError: If it cannot be downloaded, with both ways out.
    """
    cached = Path(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')) / Path(urlparse(filename).path).name
    failure = None
    # one process a node downloads, to a temporary name that torch renames at the end
    if int(os.environ.get('LOCAL_RANK', 0)) == 0 and not cached.is_file():
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(filename, str(cached), progress=os.isatty(2))
        except OSError as error:
            failure = error
    barrier()
    if not cached.is_file():
        raise CheckpointError(
            f'could not download {filename} ({_first_line(failure)}). Either download it elsewhere and put it at '
            f'{cached}, or name a local file instead: --cfg-options model.backbone.init_cfg.checkpoint=FILE when '
            'training (model.backbone.init_cfg=None trains from random weights), the CHECKPOINT argument when testing.'
        ) from failure
    try:
        return load_from_local(str(cached), map_location)
    except DamagedCheckpointError as error:  # torch does not notice that a connection ended too early
        cached.unlink(missing_ok=True)
        raise CheckpointError(
            f'{filename} arrived damaged and was removed from {cached.parent}; try again, or download it by hand'
        ) from error


def _globals_of(path: Path) -> list[str] | None:
    """What the pickles in a file name besides weights, read without running them; None if there is no whole pickle."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = b''.join(archive.read(name) for name in archive.namelist() if name.endswith('data.pkl'))
    else:
        content = path.read_bytes()
    # torch's old format is several pickles in a row (a magic number, the protocol, the system, the content), then bytes
    wanted = 4 if torch.serialization.MAGIC_NUMBER.to_bytes(10, 'little') in content[:32] else 1
    stream, names = io.BytesIO(content), []
    try:
        for _ in range(wanted):
            names += _globals_of_pickle(stream)
    except (ValueError, LookupError):
        return None
    harmless = ('torch.', 'collections.', 'numpy.', 'mmengine.')
    return [name for name in names if not name.startswith(harmless)]


def _globals_of_pickle(stream: io.BytesIO) -> list[str]:
    names, strings, memo = [], [], {}
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == 'GLOBAL':
            names.append(argument.replace(' ', '.'))
        elif opcode.name == 'STACK_GLOBAL':
            names.append('.'.join(strings[-2:]))
        elif opcode.name == 'MEMOIZE':
            memo[len(memo)] = strings[-1] if strings else ''
        elif opcode.name in ('BINGET', 'LONG_BINGET') and argument in memo:
            strings.append(memo[argument])
        elif isinstance(argument, str):
            strings.append(argument)
    return names


def _first_line(error: BaseException | None) -> str:
    return f'{type(error).__name__}: {error}'.splitlines()[0] if error else 'another process failed'
