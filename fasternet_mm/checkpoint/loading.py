"""mmengine's checkpoint loaders for local files and URLs, with errors that say what to do."""

import os
import pickle
import pickletools
import re
import urllib.error
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.runner import CheckpointLoader

from ..errors import CheckpointError


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
    if not path.is_file():
        raise CheckpointError(f'checkpoint not found: {filename} (give the path of a .pth file or a URL)')
    try:
        return torch.load(path, map_location=map_location)
    except pickle.UnpicklingError as error:
        named = re.search(r'GLOBAL (\S+)', str(error))
        name = named.group(1) if named else _first_global(path)
        if name is None:
            raise CheckpointError(f'{filename} is damaged or not a PyTorch checkpoint: {_first_line(error)}') from error
        raise CheckpointError(
            f'{filename} was refused: loading it would call {name}, which is not needed to hold weights and could '
            'run any code. If you trust its author, load it once in Python with torch.load(..., weights_only=False) '
            "and save its 'state_dict' alone."
        ) from error
    except (RuntimeError, EOFError) as error:  # what torch raises for a truncated archive
        if isinstance(error, torch.cuda.OutOfMemoryError) or 'CUDA' in str(error):
            raise
        raise CheckpointError(f'{filename} is damaged or not a PyTorch checkpoint: {_first_line(error)}') from error


def load_from_http(filename: str, map_location=None, model_dir: str | None = None):
    """Download a URL once into torch's hub cache, with a progress bar, and load it as a local file.

    Raises:
        CheckpointError: If it cannot be downloaded, with both ways out.
    """
    cached = Path(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')) / Path(urlparse(filename).path).name
    # one process a node downloads; torch writes to a temporary name and renames, so a cached file is whole
    failure = None
    if get_dist_info()[0] == 0 or int(os.environ.get('LOCAL_RANK', 0)) == 0:
        if not cached.is_file():
            try:
                cached.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(filename, str(cached), progress=os.isatty(2))
            except (OSError, urllib.error.URLError) as error:
                failure = error
    barrier()
    if not cached.is_file():
        raise CheckpointError(
            f'could not download {filename} ({_first_line(failure)}). Either download it elsewhere and put it at '
            f'{cached}, or name a local file instead: --cfg-options model.backbone.init_cfg.checkpoint=FILE when '
            'training (model.backbone.init_cfg=None trains from random weights), the CHECKPOINT argument when testing.'
        ) from failure
    return load_from_local(str(cached), map_location)


def _first_global(path: Path) -> str | None:
    """The first function or class that a bare pickle names, read without running it; None if it is no pickle."""
    strings = []
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            if opcode.name == 'GLOBAL':
                return argument.replace(' ', '.')
            if opcode.name == 'STACK_GLOBAL':
                return '.'.join(strings[-2:])
            if isinstance(argument, str):
                strings.append(argument)
    except ValueError:
        pass
    return None


def _first_line(error: BaseException | None) -> str:
    return f'{type(error).__name__}: {error}'.splitlines()[0] if error else 'another process failed'
