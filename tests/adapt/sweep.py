"""Adapt one config of every family of mmdet and print a table: ``python -m tests.adapt.sweep [FAMILY ...]``."""

import sys
import warnings
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
import mmdet

from fasternet_mm.adapt import adapt, read_config
from fasternet_mm.errors import UserError

ROOT = Path(mmdet.__file__).parent / '.mim' / 'configs'


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
    """Return what becomes of a config, and the changes or the line of the refusal."""
    try:
        result = adapt(read_config(name), 't0')
    except UserError as error:
        return 'refused', str(error)
    model = result.changes['model']
    owner = model.get('detector', model)
    owner['backbone'] = {key: owner['backbone'][key] for key in ('out_indices',) if key in owner['backbone']}
    return 'adapted', str(model)


def main() -> None:
    warnings.filterwarnings('ignore')
    families = sys.argv[1:] or sorted(path.name for path in ROOT.iterdir() if path.name != '_base_')
    counts = {}
    print('| config | result | changes, or the line |\n|---|---|---|')
    for family in families:
        name = representative(family)
        result, line = row(name) if name else ('no model', '')
        counts[result] = counts.get(result, 0) + 1
        print(f'| {name or family} | {result} | {line} |', flush=True)
    print(', '.join(f'{count} {result}' for result, count in counts.items()))


if __name__ == '__main__':
    main()
