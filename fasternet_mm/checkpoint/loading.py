"""mmengine's checkpoint loaders for local files and URLs, with errors that say what to do."""

import difflib
import hashlib
import io
import os
import pickle
import pickletools
import re
import zipfile
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import urlopen

import torch
from mmengine.dist import barrier
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from ..errors import (
    CheckpointError,
    DamagedCheckpointError,
    DownloadError,
    MissingCheckpointError,
    RefusedCheckpointError,
)
from ..files import AtomicLocalBackend, partial_path
from .rules import listed


def load_from_local(filename: str, map_location=None):
    """Load a local file with torch's own safety default, ``weights_only=True``.

    Files that end in .safetensors, as timm publishes them, need the package safetensors.

    Raises:
        CheckpointError: If there is no such file, if it is damaged, if it holds no dict by name, or if loading it would
            run code.
    """
    path = require_file(filename)
    try:
        if path.suffix == '.safetensors':
            named = isinstance(map_location, (str, torch.device))
            checkpoint = safetensors_torch().load_file(path, device=str(map_location) if named else 'cpu')
        else:
            _require_whole(path)
            checkpoint = torch.load(path, map_location=map_location)
        _require_names(checkpoint, filename)
        return checkpoint
    except PermissionError as error:
        raise CheckpointError(f'{filename} cannot be read: {error.strerror}') from error
    except (CheckpointError, torch.cuda.OutOfMemoryError):
        raise
    except pickle.UnpicklingError as error:
        suspects = _globals_of(path)
        if suspects is None:
            raise DamagedCheckpointError(f'{filename} is damaged or not a PyTorch checkpoint') from error
        named = re.search(r'GLOBAL (\S+)', str(error))
        suspects = [named.group(1)] if named else suspects
        if not suspects:
            raise RefusedCheckpointError(
                f'{filename} was refused: it holds plain data, but in a pickle format that torch does not check; write '
                "it again with torch.save's default pickle_protocol"
            ) from error
        raise RefusedCheckpointError(
            f'{filename} was refused: loading it would call {suspects[0]}, which is not needed to hold weights and '
            'could run any code. If you trust its author, load it once in Python with '
            "torch.load(..., weights_only=False) and save its 'state_dict' alone."
        ) from error
    except Exception as error:  # a truncated or altered file can raise anything
        if 'CUDA' in str(error):
            raise
        if isinstance(error, MemoryError) or 'allocate memory' in str(error):
            raise CheckpointError(f'there is not enough memory to load {filename}') from error
        raise DamagedCheckpointError(
            f'{filename} is damaged or not a PyTorch checkpoint ({_first_line(error)})'
        ) from error


def _require_whole(path: Path) -> None:
    """Raise BadZipFile where a record of torch's zip format is not what was written; torch does not look.

    A record without a checksum, as ``torch.serialization.set_crc32_options(False)`` writes all, has 0 in its place.
    """
    with open(path, 'rb') as file:
        if file.read(4) != b'PK\3\4':  # as torch tells the format
            return
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.CRC for record in records) and (damaged := archive.testzip()):
            raise zipfile.BadZipFile(f'the checksum of {damaged} differs')
        # where this bit calls a record a folder, torch returns memory that it never filled
        if any(record.external_attr & 0x10 and not record.is_dir() for record in records):
            raise zipfile.BadZipFile('a record is marked as a folder')


def _require_names(checkpoint, filename: str) -> None:
    """Raise CheckpointError where mmengine would not find a dict of tensors by name."""
    weights = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(weights, dict):
        error = CheckpointError(f'No state_dict found in checkpoint file {filename}')  # mmengine's words
        error.add_note(f'it holds no state_dict, a dict of tensors by name, but a {type(weights).__name__}')
        raise error
    for name in weights:
        if not isinstance(name, str) or not name.isprintable():
            raise CheckpointError(f'{filename} holds no state_dict, a dict of tensors by name: {name!r} names none')


def safetensors_torch():
    """Return the module ``safetensors.torch``.

    Raises:
        CheckpointError: If the package is not installed.
    """
    try:
        import safetensors.torch
    except ImportError as error:
        raise CheckpointError('files in the .safetensors format need a package: pip install safetensors') from error
    return safetensors.torch


def require_file(filename: str) -> Path:
    """Return the path of the local file `filename`; raise CheckpointError where there is none, or it is empty."""
    path = Path(os.path.expanduser(filename))
    if path.is_file():
        if not path.stat().st_size:
            raise DamagedCheckpointError(f'{filename} is damaged or not a PyTorch checkpoint: it is empty')
        return path
    scheme, _, rest = filename.partition('://')
    if rest:
        known = [prefix for prefix in CheckpointLoader._schemes if re.fullmatch('[a-z-]+://', prefix)]
        near = difflib.get_close_matches(f'{scheme.lower()}://', known, 1)
        advice = f'did you mean {near[0]}{rest}?' if near else f'known are {", ".join(known)}, and the path of a file'
        if scheme.lower() == 'file':
            advice = f'give the path alone: {unquote(urlparse(filename).path)}'
        raise CheckpointError(f'no checkpoint can be had from {filename!r}: {scheme}:// is unknown; {advice}')
    if path.is_dir():
        files = sorted(file.name for file in path.glob('*.pth'))
        advice = f'name one of the files in it: {listed(files)}' if files else 'give the path of a .pth file or a URL'
        raise CheckpointError(f'{filename!r} is a folder, not a checkpoint; {advice}')
    raise MissingCheckpointError(f'checkpoint not found: {filename} (give the path of a .pth file or a URL)')


def load_from_http(filename: str, map_location=None):
    """Download a URL once into torch's hub cache, with a progress bar, and load it as a local file.

    The size is checked against what the server announces, and a URL that ends in ``#sha256=<hexadecimal digits>``
    against that hash, whether it was just downloaded or not.

    Raises:
        CheckpointError: If it cannot be downloaded, with both ways out; if it arrives damaged.
    """
    return load_url(filename, cached_file(filename), map_location)


def cached_file(url: str) -> Path:
    """Return where a URL is kept once it is downloaded: the name in the URL, in torch's cache, as mmengine has it."""
    return Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)


def split_url(source: str) -> tuple[str, str]:
    """Return a URL and the SHA-256 after it, or ''; raise CheckpointError where either is none."""
    url, mark, sha256 = source.partition('#sha256=')
    if mark and not re.fullmatch('[0-9a-fA-F]{64}', sha256):
        raise CheckpointError(f'{source!r} ends in no SHA-256: after #sha256= come 64 hexadecimal digits')
    if Path(urlparse(url).path).name in ('', '..'):
        raise CheckpointError(f'{source!r} names no file; give the URL of the file itself')
    return url, sha256.lower()


def load_url(source: str, cached: Path, map_location):
    """Load a URL as :func:`load_from_http`, kept as the file `cached`."""
    url, sha256 = split_url(source)
    failure = None
    if int(os.environ.get('LOCAL_RANK', 0)) == 0 and not _is_kept(url, cached):  # one process a node
        try:
            _download(url, cached, sha256)
        except (OSError, HTTPException, ValueError) as error:
            failure = error
    barrier()
    if not _is_kept(url, cached):
        raise DownloadError(
            f'could not download {url} ({_first_line(failure)}). Either download it elsewhere and put it at {cached}, '
            'or give a local file where the URL stands: when training --cfg-options '
            'model.backbone.init_cfg.checkpoint=FILE or load_from=FILE (None trains from random weights), when testing '
            'the CHECKPOINT argument, in Python pretrained=FILE.'
        ) from failure
    if sha256 and (digest := file_sha256(cached)) != sha256:
        raise CheckpointError(f'{cached} has the SHA-256 {digest}, not {sha256}; remove it and try again')
    try:
        return load_from_local(str(cached), map_location)
    except DamagedCheckpointError as error:
        cached.unlink(missing_ok=True)
        raise CheckpointError(
            f'{url} arrived damaged and was removed from {cached.parent}; try again, or download it by hand'
        ) from error


def _note_of(cached: Path) -> Path:
    """Return the note of which URL `cached` came from, and when; mmengine's own folder holds checkpoints alone."""
    return cached.parents[1] / 'origins' / f'{cached.name}.txt'


def _is_kept(url: str, cached: Path) -> bool:
    """Return whether `cached` is there and, as far as is known, from `url`, not another URL's epoch_12.pth."""
    if not cached.is_file():
        return False
    note = _note_of(cached)
    time, _, origin = note.read_text().partition(' ') if note.is_file() else ('', '', '')
    return origin == url or time != str(cached.stat().st_mtime_ns)  # a file that was put there since is believed


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _download(url: str, target: Path, sha256: str) -> None:
    """Download to `target`; raise OSError if the URL cannot be read, ends too early, or is of another hash."""
    with urlopen(url, timeout=30) as response:
        announced = int(response.headers.get('Content-Length') or 0)
    target.parent.mkdir(parents=True, exist_ok=True)
    print_log(f'Downloading {url} ({announced / 1e6:.1f} MB) to {target}', logger='current')
    partial = partial_path(target)
    torch.hub.download_url_to_file(url, str(partial), progress=os.isatty(2))
    size = partial.stat().st_size
    problem = None
    if announced and size != announced:  # torch does not notice that a connection ended too early
        problem = f'{size} of {announced} bytes arrived'
    elif sha256 and (digest := file_sha256(partial)) != sha256:
        problem = f'its SHA-256 is {digest}, not {sha256}'
    if problem:
        partial.unlink()
        raise OSError(problem)
    target.unlink(missing_ok=True)  # another URL's; a kill here leaves no file with a wrong note
    AtomicLocalBackend().put_text(f'{partial.stat().st_mtime_ns} {url}', _note_of(target))
    os.replace(partial, target)


def _globals_of(path: Path) -> list[str] | None:
    """Return what a file's pickles name besides weights, without running them; None if there is no whole pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            content = b''.join(archive.read(name) for name in archive.namelist() if name.endswith('data.pkl'))
    except zipfile.BadZipFile:
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
