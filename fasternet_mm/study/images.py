"""Pictures of a folder, as a network takes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import DataError, UserError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


@dataclass
class Preprocessing:
    """Say how a picture becomes a network's input: shorter side, middle, mean and standard deviation.

    Attributes:
        size (int): Side of the square that is cut from the middle, in pixels.
        shorter (int): What the shorter side is resized to before.
        mean, std (Sequence[float]): By channel, of values from 0 to 255.
        bgr (bool): Whether the network takes blue first; `mean` and `std` are in its order.
        bicubic (bool): Whether resizing is bicubic, not bilinear.
    """

    size: int = 224
    shorter: int = 256
    mean: Sequence[float] = (123.675, 116.28, 103.53)
    std: Sequence[float] = (58.395, 57.12, 57.375)
    bgr: bool = False
    bicubic: bool = False

    def resized(self, size: int) -> 'Preprocessing':
        """Return the same for another size, with as much of the picture in it."""
        return Preprocessing(size, round(self.shorter * size / self.size), self.mean, self.std, self.bgr, self.bicubic)

    def picture(self, file: Path) -> Image.Image:
        """Read a picture and return its middle, RGB.

        Raises:
            DataError: If the file cannot be read as a picture.
        """
        try:
            with Image.open(file) as opened:
                picture = ImageOps.exif_transpose(opened).convert('RGB')
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            told = str(error).partition('\n')[0]
            raise DataError(f'{file} cannot be read as a picture ({told}); repair it or take it away') from error
        return self.cut(picture)

    def cut(self, picture: Image.Image) -> Image.Image:
        """Return the middle of a picture."""
        way = Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.BILINEAR
        shorter = min(picture.size)  # sides and places are rounded as torchvision does
        picture = picture.resize([side * self.shorter // shorter for side in picture.size], way)
        left, top = (round((side - self.size) / 2) for side in picture.size)
        return picture.crop((left, top, left + self.size, top + self.size))

    def __call__(self, file: Path) -> Tensor:
        """Return a picture as (3, size, size); errors as :meth:`picture`."""
        return self.tensor(self.picture(file))

    def tensor(self, picture: Image.Image) -> Tensor:
        """Return the middle of a picture, RGB, as (3, size, size)."""
        pixels = torch.from_numpy(np.asarray(picture, np.float32).copy()).permute(2, 0, 1)
        pixels = pixels.flip(0) if self.bgr else pixels
        return (pixels - torch.tensor(self.mean).view(3, 1, 1)) / torch.tensor(self.std).view(3, 1, 1)


def find_pictures(folder: str | Path, most: int | None = None) -> list[Path]:
    """Return the pictures in a folder and in those below it, by name; of more than `most` a draw with seed 0.

    A file is a folder of one picture.

    Raises:
        UserError: If there is no such folder, or no picture in it.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise UserError(f'--images {folder} is not a folder')
    files = sorted(file for file in folder.rglob('*') if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise UserError(f'--images {folder} holds no pictures ({" ".join(SUFFIXES)}), nor do the folders in it')
    if most is not None and len(files) > most:
        chosen = np.random.default_rng(0).choice(len(files), most, replace=False)
        files = [files[number] for number in sorted(chosen)]
    return files


def split(files: Sequence[Path], shares: dict[str, float]) -> dict[str, list[Path]]:
    """Divide pictures by a draw with seed 0 into parts, each of at least one picture.

    Args:
        files (Sequence[Path]): The pictures.
        shares (dict[str, float]): Of each part, by name; the sum is 1. The first part gets what rounding leaves.

    Raises:
        UserError: If there are fewer than five pictures.
    """
    if len(files) < 5:
        raise UserError(f'--images: {len(files)} pictures are too few to divide; give at least five')
    order = [files[number] for number in np.random.default_rng(0).permutation(len(files))]
    parts, names = {}, list(shares)
    for name in names[:0:-1]:
        number = max(1, round(shares[name] * len(files)))
        parts[name], order = sorted(order[:number]), order[number:]
    parts[names[0]] = sorted(order)
    return {name: parts[name] for name in names}


def batches(files: Sequence[Path], prepare: Preprocessing, size: int = 8) -> Iterator[Tensor]:
    """Yield pictures as batches (N, 3, H, W); errors as :class:`Preprocessing`."""
    for start in range(0, len(files), size):
        yield torch.stack([prepare(file) for file in files[start : start + size]])
