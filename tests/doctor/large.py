"""How long the annotations of a large made set take: ``python -m tests.doctor.large [number of annotations]``."""

import resource
import sys
import time

import numpy as np
from pycocotools import mask as coco_mask

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
from fasternet_mm.doctor.coco import Reading, check_content

WIDTH, HEIGHT, PER_IMAGE, CLASSES = 640, 480, 7, 80  # as in COCO


def made(number: int) -> dict:
    """Return the content of a file with this many annotations; one in ten is RLE, the others are polygons."""
    rng = np.random.default_rng(0)
    annotations = []
    for index in range(number):
        width, height = rng.uniform(8, 200, 2)
        x, y = rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height)
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        outline = np.stack([x + width * (0.5 + 0.5 * np.cos(angles)), y + height * (0.5 + 0.5 * np.sin(angles))], 1)
        mask = [outline.round(2).ravel().tolist()]
        if index % 10 == 0:
            mask = coco_mask.frPyObjects(mask, HEIGHT, WIDTH)[0]
            mask['counts'] = mask['counts'].decode()
        annotations.append(
            dict(id=index, image_id=index // PER_IMAGE, category_id=int(rng.integers(CLASSES)), iscrowd=0,
                 bbox=[x, y, width, height], area=width * height, segmentation=mask)
        )  # fmt: skip
    numbers = range(-(-number // PER_IMAGE))
    images = [dict(id=index, file_name=f'{index}.jpg', width=WIDTH, height=HEIGHT) for index in numbers]
    categories = [dict(id=index, name=f'class {index}') for index in range(CLASSES)]
    return dict(images=images, annotations=annotations, categories=categories)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == '__main__':
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 120_000
    content = made(count)
    before, start = peak(), time.perf_counter()
    findings, _ = check_content(content, Reading('train', tuple(f'class {i}' for i in range(CLASSES)), True, True))
    seconds = time.perf_counter() - start
    print(f'{count} annotations with masks of {len(content["images"])} images: {seconds:.1f} s')
    print(f'peak memory {peak():.2f} GiB, of which {before:.2f} GiB before the check')
    print(f'found: {[finding.kind for finding in findings]}')
