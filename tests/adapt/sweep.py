"""Adapt one config of every family of mmdet and print a table: ``python -m tests.adapt.sweep [FAMILY ...]``."""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
import mmdet
import torch
from mmengine.logging import MMLogger

from fasternet_mm.adapt import adapt, read_config
from fasternet_mm.errors import UserError

ROOT = Path(mmdet.__file__).parent / '.mim' / 'configs'


PAGE = """# Which configs of mmdet can have a FasterNet?

One config of every family of mmdet {mmdet} (torch {torch}, mmcv-lite, few optional packages), adapted to T0 as
[the page about it](adapt.md) says: backbone, neck, and heads without one were run without weights, and each whole
model was built. That is no training: whether a config trains is what `--check` tells. Written by
`python -m tests.adapt.sweep`.

- **adapted**: these settings of the model change beside the backbone and the pixels' mean, std and order.
- **needs `--project`**: it works with a 1x1 convolution and resampling behind each output.
- **cannot be tried**: with its own backbone, too, it cannot be built or run here: a package, an operator or a file is
  missing, or it has no plain forward pass (`mask2former_vis`). Nothing is written then.
- **refused**: FasterNet cannot take the old backbone's place.
"""


def representative(family: str) -> str | None:
    """Return the name of the family's plainest config that has a model: ResNet-50 and 1x where there are."""
    files = sorted(
        (ROOT / family).glob('*.py'), key=lambda f: ('r50' not in f.name, '1x' not in f.name, len(f.name), f)
    )
    for file in files:
        name = f'mmdet::{family}/{file.name}'
        try:
            if 'model' in read_config(name):
                return name
        except UserError:  # its base is not there
            continue
    return None


def row(name: str) -> tuple[str, str]:
    """Return what becomes of a config, and the changes of its model, or the line of the refusal."""
    cfg = read_config(name)
    try:
        return 'adapted', ', '.join(_settings(adapt(cfg).changes['model']))
    except UserError as error:
        line = str(error)
    if 'with its own backbone' in line:
        return 'cannot be tried', line
    try:
        adapt(cfg, project=True)
    except UserError:
        return 'refused', line
    return 'needs `--project`', line


def _settings(changes: dict, prefix: str = '') -> Iterator[str]:
    for key, value in changes.items():
        if key == 'backbone':
            if 'out_indices' in value:
                yield f'{prefix}backbone.out_indices={value["out_indices"]}'
        elif isinstance(value, dict):
            yield from _settings(value, f'{prefix}{key}.')
        elif isinstance(value, list) and isinstance(value[0], dict):
            yield f'{prefix}{key}.0.in_channels={value[0]["in_channels"]}'
        elif key not in ('mean', 'std', 'bgr_to_rgb', 'to_rgb'):
            yield f'{prefix}{key}={value}'


def main() -> None:
    warnings.filterwarnings('ignore')
    MMLogger.get_current_instance().setLevel('WARNING')  # its lines would stand in the table
    print(PAGE.format(mmdet=mmdet.__version__, torch=torch.__version__))
    counts = Counter()
    print('| config | result | what changes, or the reason |\n|---|---|---|')
    for family in sys.argv[1:] or sorted(path.name for path in ROOT.iterdir() if path.name != '_base_'):
        if name := representative(family):
            result, line = row(name)
            counts[result] += 1
            print(f'| {name.removeprefix("mmdet::")} | {result} | {" ".join(line.split())} |', flush=True)
    print('\n' + '; '.join(f'{result}: {count}' for result, count in counts.most_common()))


if __name__ == '__main__':
    main()
