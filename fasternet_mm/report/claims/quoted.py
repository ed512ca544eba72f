"""The paper's figures that verdicts are computed with."""

import json
from pathlib import Path

from ..schema import Published

QUOTED = json.loads(Path(__file__).with_name('quoted.json').read_text())
_TABLES = json.loads((Path(__file__).parents[1] / 'paper' / 'published.json').read_text())
TABLE3 = {row['network']: Published(**row) for row in _TABLES['table3_imagenet']}
TABLE4 = {row['backbone']: Published(**row) for row in _TABLES['table4_coco_mask_rcnn_1x']}
