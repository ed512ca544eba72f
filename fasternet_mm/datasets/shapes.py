"""A COCO-format data set of circles, squares and triangles, drawn rather than downloaded."""

import filecmp
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ..errors import UserError
from ..files import partial_path, remove_leftovers, require_writable

CLASSES = ('circle', 'square', 'triangle')
_VERSION = 1  # of the drawing code: counted up, an older set is drawn again
_MIN_VISIBLE = 0.5  # an object keeps at least this share of its area when others are drawn over it


def generate_shapes(root: str | Path, num_train: int = 400, num_val: int = 60, size: int = 192, seed: int = 0) -> Path:
    """Write ``root/{train,val}/*.png`` and ``root/annotations/instances_{train,val}.json``.

    One to six textured shapes an image, 13 to 96 pixels wide at the default size, slightly rotated, partly hiding
    each other, on textured backgrounds; instance masks as RLE of what is visible. Same arguments, same bytes; the
    splits come from different random streams. A finished set of the same arguments is left as it is; another one is
    replaced. The set appears whole or not at all, and never over other files.

    Args:
        root (str | Path): Folder to write to.
        num_train (int): Number of training images, at least 1. Defaults to 400.
        num_val (int): Number of validation images, at least 1. Defaults to 60.
        size (int): Side of the images in pixels, at least 32. Defaults to 192.
        seed (int): Defaults to 0.

    Returns:
        Path: `root`.

    Raises:
        UserError: If an argument is out of range, or `root` holds a file that is none of the sample's.
        OSError: If it cannot be written; then nothing of it is there, and what was there before still is.
    """
    root = Path(root)
    recipe = dict(version=_VERSION, num_train=num_train, num_val=num_val, size=size, seed=seed)
    for name, least in (('num_train', 1), ('num_val', 1), ('size', 32), ('seed', 0)):
        if recipe[name] < least:
            raise UserError(f'{name} of the sample data set must be at least {least}, but is {recipe[name]!r}')
    present, before = _files(root), _recipe_of(root)
    ours = _names(before)
    if before == recipe and all(present.get(name) for name in ours):
        return root
    unknown = set(present) - ours
    _require_ours(root, unknown - _names(recipe))
    target = root.resolve()  # a link stays a link
    require_writable(target.parent, f'the folder of {root}')
    remove_leftovers(target.parent)
    drawn, old = partial_path(target), partial_path(target.with_name(f'{target.name}.old'))
    try:
        for stream, (split, count) in enumerate([('train', num_train), ('val', num_val)]):
            rng = np.random.default_rng([seed, stream])
            _write_split(drawn, split, count, size, rng)
        (drawn / 'recipe.json').write_text(json.dumps(recipe))
        # version 0.1.0 wrote its recipe last, and a kill left none: what is equal to the set's files is ours
        _require_ours(root, {name for name in unknown if not filecmp.cmp(target / name, drawn / name, shallow=False)})
        if target.exists():
            target.rename(old)
        drawn.rename(target)
    finally:
        shutil.rmtree(drawn, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    return root


def _recipe_of(root: Path) -> dict | None:
    """Return what the set in `root` was drawn by, or None where it is not one of ours."""
    try:
        recipe = json.loads((root / 'recipe.json').read_text())
    except (OSError, ValueError):
        return None
    known = {'version', 'num_train', 'num_val', 'size', 'seed'}
    return recipe if isinstance(recipe, dict) and recipe.keys() <= known else None


def _names(recipe: dict | None) -> set[str]:
    """Return the files of the set that `recipe` draws, relative to its root."""
    if recipe is None:
        return set()
    names = {'recipe.json'}
    for split in ('train', 'val'):
        names.add(f'annotations/instances_{split}.json')
        names |= {f'{split}/{number:06d}.png' for number in range(1, int(recipe.get(f'num_{split}', 0)) + 1)}
    return names


def _files(root: Path) -> dict[str, int]:
    """Return the size of each file under `root`, which need not exist."""
    if root.exists() and not root.is_dir():
        raise UserError(f'{root} is a file; name a folder for the sample data set')
    files = (path for path in root.rglob('*') if not path.is_dir() or path.is_symlink())
    return {str(path.relative_to(root)): path.lstat().st_size for path in files}


def _require_ours(root: Path, foreign: set[str]) -> None:
    if foreign:
        raise UserError(
            f'{root} holds {len(foreign)} files that are not of the sample data set ({min(foreign)}); name another '
            'folder, or move them away'
        )


def _write_split(root: Path, split: str, count: int, size: int, rng: np.random.Generator) -> None:
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / 'annotations').mkdir(exist_ok=True)
    images, annotations = [], []
    for image_id in range(1, count + 1):
        picture, objects = draw_image(size, rng)
        name = f'{image_id:06d}.png'
        _, png = cv2.imencode('.png', picture)  # imwrite would not say that the disk is full
        (root / split / name).write_bytes(png)
        images.append(dict(id=image_id, file_name=name, width=size, height=size))
        for label, visible in objects:
            rle = coco_mask.encode(np.asfortranarray(visible.astype(np.uint8)))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
                    bbox=coco_mask.toBbox(rle).tolist(),
                    area=int(coco_mask.area(rle)),
                    iscrowd=0,
                )
            )
    categories = [dict(id=index + 1, name=name) for index, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def draw_image(size: int, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw one image.

    Returns:
        tuple: The BGR picture (size, size, 3) uint8, and for each object its class index and its visible mask
        (size, size) bool.
    """
    picture = _texture(size, rng)
    objects: list[tuple[int, np.ndarray]] = []
    areas: list[int] = []
    for _ in range(rng.integers(1, 7)):
        label, mask = _shape(size, rng)
        hidden = [visible & ~mask for _, visible in objects]
        if any(rest.sum() < _MIN_VISIBLE * area for rest, area in zip(hidden, areas)):
            continue
        picture[mask] = _texture(size, rng, unlike=picture[mask].mean(axis=0))[mask]
        objects = [(other, rest) for (other, _), rest in zip(objects, hidden)] + [(label, mask)]
        areas.append(int(mask.sum()))
    return picture, objects


def _texture(size: int, rng: np.random.Generator, unlike: np.ndarray | None = None) -> np.ndarray:
    """Return a muted colour, or a strong one 60 grey levels or more from `unlike`, with waves and grain over it."""
    colour = rng.uniform(90, 165, 3) if unlike is None else unlike
    while unlike is not None and np.abs(colour - unlike).max() < 60:
        colour = rng.uniform(20, 235, 3)
    rows, columns = np.mgrid[:size, :size]
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(8, 40), rng.uniform(0, 2 * np.pi)
    waves = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * 2 * np.pi / period + phase)
    light = rng.uniform(5, 20) * waves + rng.uniform(2, 8) * rng.normal(0, 1, (size, size))
    return np.clip(colour + light[..., None], 0, 255).astype(np.uint8)


def _shape(size: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
    """Return a class index and the mask of one rotated shape that lies inside the image."""
    label = int(rng.integers(len(CLASSES)))
    corners, upright = {'circle': (64, 0), 'square': (4, np.pi / 4), 'triangle': (3, -np.pi / 2)}[CLASSES[label]]
    radius = float(np.exp(rng.uniform(np.log(size / 20), np.log(size / 4))))
    centre = rng.uniform(radius, size - radius, 2)
    angles = upright + rng.uniform(-0.25, 0.25) + np.arange(corners) * 2 * np.pi / corners
    outline = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 1)
    return label, mask.astype(bool)
