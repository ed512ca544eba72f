"""How long the annotations of a large made set take: ``python -m tests.doctor.large [number of annotations]``.

All that tools/check_data.py does with a configuration of ours is done, except that no image is there to be decoded.
"""

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
from mmdet.datasets import CocoDataset

from fasternet_mm.doctor.examination import judge
from fasternet_mm.doctor.render import sets_told, verdict
from fasternet_mm.doctor.sources import sources_of
from fasternet_mm.engine.runner import load_config
from tests.helpers import REPO

WIDTH, HEIGHT, PER_IMAGE = 640, 480, 7  # as in COCO
CLASSES = CocoDataset.METAINFO['classes']


def made(number: int) -> dict:
    """Return the content of a file with this many annotations; one in ten is RLE, the others are polygons."""
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    annotations = []
    for index in range(number):
        width, height = rng.uniform(8, 200, 2)
        x, y = rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height)
        outline = np.stack([x + width * (0.5 + 0.5 * np.cos(angles)), y + height * (0.5 + 0.5 * np.sin(angles))], 1)
        mask = [outline.round(2).ravel().tolist()]
        if index % 10 == 0:
            mask = coco_mask.frPyObjects(mask, HEIGHT, WIDTH)[0]
            mask['counts'] = mask['counts'].decode()
        entry = dict(id=index, image_id=index // PER_IMAGE, category_id=int(rng.integers(len(CLASSES))), iscrowd=0)
        annotations.append(dict(entry, bbox=[x, y, width, height], area=width * height, segmentation=mask))
    numbers = range(-(-number // PER_IMAGE))
    images = [dict(id=index, file_name=f'{index}.jpg', width=WIDTH, height=HEIGHT) for index in numbers]
    categories = [dict(id=index, name=name) for index, name in enumerate(CLASSES)]
    return dict(images=images, annotations=annotations, categories=categories)


def write(number: int, path: Path) -> None:
    path.write_text(json.dumps(made(number)))


def peak() -> float:
    """Return the most memory that this process had so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(number: int, folder: Path) -> None:
    maker = multiprocessing.Process(target=write, args=(number, folder / 'made.json'))  # its memory is its own
    maker.start()
    maker.join()
    cfg = load_config(str(REPO / 'configs' / 'mask_rcnn_fasternet_t0.py'))
    cfg.train_dataloader.dataset.update(data_root=str(folder), ann_file='made.json', data_prefix=dict(img=''))
    cfg.val_dataloader = cfg.test_dataloader = None
    before, start = peak(), time.perf_counter()
    diagnosis = judge(cfg, sources_of(cfg), {})
    print(f'{number} annotations in {time.perf_counter() - start:.1f} s')
    print(f'peak memory {peak():.2f} GiB, of which {before:.2f} GiB before')
    print(*sets_told(diagnosis), verdict(diagnosis), sep='\n')


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as temporary:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 120_000, Path(temporary))
