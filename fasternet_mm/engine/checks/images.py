"""Image files: whether they are there and can be decoded, and of which size mmcv loads them."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import mmcv
from mmcv.transforms import LoadImageFromFile
from PIL import ExifTags, Image

# what OpenCV decodes as Pillow does; of another format it is asked, too
_COMMON = ('JPEG', 'MPO', 'PNG', 'BMP', 'PPM', 'TIFF', 'WEBP')
# what Pillow raises for a damaged file: OSError is of most formats, the others are of single decoders
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError)


class Decoder(NamedTuple):
    """How a pipeline's ``LoadImageFromFile`` decodes."""

    color_type: str = 'color'
    backend: str | None = 'cv2'


_USUAL = Decoder()


@dataclass
class ImageFile:
    """What is known of an image file.

    Attributes:
        fault (str): 'missing', 'empty', 'unreadable', 'damaged' (mmcv decodes it, with a part of it wrong) or ''.
        told (str): The fault as the end of a sentence that begins with the file's name.
        size (tuple[int, int] | None): Width and height as mmcv loads it: by default it turns it as EXIF says.
        stored_size (tuple[int, int] | None): Width and height as they are stored.
        orientation (int): Of EXIF, 1 to 8; 1 is upright.
        digest (bytes): Hash of the file's bytes.
    """

    fault: str = ''
    told: str = ''
    size: tuple[int, int] | None = None
    stored_size: tuple[int, int] | None = None
    orientation: int = 1
    digest: bytes = b''


def decoder_of(pipeline) -> Decoder:
    """Return how the transforms of a built pipeline decode images."""
    for transform in pipeline.transforms:
        if isinstance(transform, LoadImageFromFile):
            return Decoder(transform.color_type, transform.imdecode_backend)
    return Decoder()


def is_remote(path: str) -> bool:
    """Return whether a path is the file backend's affair."""
    return '://' in path


def fault_of_file(path: str) -> str | None:
    """Return that an image does not exist or is empty, as the end of a sentence, or None."""
    if is_remote(path):
        return None
    if not os.path.isfile(path):
        return 'does not exist'
    return None if os.path.getsize(path) else 'is empty'


def examine(path: str, decoder: Decoder = _USUAL) -> ImageFile:
    """Decode all of a local image by Pillow, which alone tells of a cut one, and by mmcv where they may differ."""
    if told := fault_of_file(path):
        return ImageFile('missing' if 'exist' in told else 'empty', told)
    found, content, known = ImageFile(), b'', False
    try:
        with open(path, 'rb') as file:
            content = file.read()
            found.digest = hashlib.blake2b(content, digest_size=16).digest()
            file.seek(0)
            with Image.open(file) as image:
                found.stored_size = found.size = image.size
                known = image.format in _COMMON
                found.orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                image.draft('RGB', (1, 1))  # a JPEG's bytes are all read, but it is drawn small
                image.load()
        if known and found.orientation == 1:
            return found
    except Image.DecompressionBombError:  # larger than Pillow likes
        pass
    except _DAMAGED as error:
        found.told = ' '.join(f'{type(error).__name__}: {error}'.split())
    pixels = None
    with suppress(Exception):  # whatever a decoder raises, a pipeline would raise it
        pixels = mmcv.imfrombytes(content, decoder.color_type, backend=decoder.backend)
    if pixels is None:
        found.fault, found.told = 'unreadable', f'is damaged, or of a format that cannot be read: {found.told}'
    else:
        found.size = pixels.shape[1::-1]
        if found.told:
            found.fault, found.told = 'damaged', f'is cut or damaged, and decoded with a part of it wrong: {found.told}'
    return found
