"""The paper's figures that verdicts are computed with."""

import json
from pathlib import Path

from ..paper.rows import published_rows
from ..schema import Published

QUOTED = json.loads(Path(__file__).with_name('quoted.json').read_text())
TABLE3 = {row['network']: Published(**row) for row in published_rows('table3_imagenet')}
TABLE4 = {row['backbone']: Published(**row) for row in published_rows('table4_coco_mask_rcnn_1x')}
