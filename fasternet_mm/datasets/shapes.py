"""A COCO-format data set of circles, squares and triangles, drawn rather than downloaded."""

import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

CLASSES = ('circle', 'square', 'triangle')
_VERSION = 1  # of the drawing code: counted up, an older set is drawn again
_MIN_VISIBLE = 0.5  # an object keeps at least this share of its area when others are drawn over it


def generate_shapes(root: str | Path, num_train: int = 400, num_val: int = 60, size: int = 192, seed: int = 0) -> Path:
    """Write ``root/{train,val}/*.png`` and ``root/annotations/instances_{train,val}.json``.

    One to six textured shapes an image, 13 to 96 pixels wide at the default size, slightly rotated, partly hiding
    each other, on textured backgrounds; instance masks as RLE of what is visible. Same arguments, same bytes; the
    splits come from different random streams. A finished set of the same arguments is left as it is.

    Args:
        root (str | Path): Folder to write to.
        num_train (int): Number of training images. Defaults to 400.
        num_val (int): Number of validation images. Defaults to 60.
        size (int): Side of the images in pixels. Defaults to 192.
        seed (int): Defaults to 0.

    Returns:
        Path: `root`.
    """
    root = Path(root)
    recipe = dict(version=_VERSION, num_train=num_train, num_val=num_val, size=size, seed=seed)
    marker = root / 'recipe.json'  # written last: its presence says that the set is whole
    if marker.is_file() and json.loads(marker.read_text()) == recipe:
        return root
    marker.unlink(missing_ok=True)
    for stream, (split, count) in enumerate([('train', num_train), ('val', num_val)]):
        rng = np.random.default_rng([seed, stream])
        _write_split(root, split, count, size, rng)
    marker.write_text(json.dumps(recipe))
    return root


def _write_split(root: Path, split: str, count: int, size: int, rng: np.random.Generator) -> None:
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / 'annotations').mkdir(exist_ok=True)
    images, annotations = [], []
    for image_id in range(1, count + 1):
        picture, objects = draw_image(size, rng)
        name = f'{image_id:06d}.png'
        cv2.imwrite(str(root / split / name), picture)
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
