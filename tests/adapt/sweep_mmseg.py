"""Adapt one config of every family of mmseg, train it a step and predict, beside the same of its own backbone.

``python -m tests.adapt.sweep_mmseg [FAMILY or FAMILY/CONFIG.py ...]`` runs those that are named, or all that have no
result yet, adds a line for each to docs/compatibility_mmseg.jsonl as it comes, and writes docs/compatibility_mmseg.md.
"""

import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
import mmseg.models  # noqa: F401  before the processes part
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from fasternet_mm.adapt import Adaptation, adapt, read_config
from fasternet_mm.adapt.swap import StockError
from fasternet_mm.errors import UserError

from .sweep import DOCS, _settings, isolated, trying

CONFIGS = Path(mmseg.__file__).parent / '.mim' / 'configs'
RESULTS, PAGE = DOCS / 'compatibility_mmseg.jsonl', DOCS / 'compatibility_mmseg.md'
INSTEAD = {'swin': 'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'}  # of six channels
TEXT = """# Which configs of mmseg can have a FasterNet?

One config of every family of mmsegmentation {mmseg}, adapted to T0 as [the page about it](adapt.md) says, with torch
{torch} and mmcv-lite on a CPU. Each is then built with random weights, trained for one step by its own optimizer and
made to predict, on two made-up images of 128 pixels, as `--check` does. The same is done with its own backbone, as the
control. Whether a segmentor learns is another matter: of these, Semantic FPN alone was trained, on a few drawn images,
by a test. Written by `python -m tests.adapt.sweep_mmseg` from `compatibility_mmseg.jsonl`.

- **adapted**: these settings of the model change beside the backbone and the pixels' mean, std and order.
- **with `--project`**: it takes a 1x1 convolution and resampling behind each output, for the reason given.
- **refused**: FasterNet cannot take the old backbone's place, with `--project` neither.
- **stock cannot**: with its own backbone, too, it cannot be built or run here.

{summary}

| config | result | trains | predicts | stock trains | stock predicts | what changes, or the reason |
|---|---|---|---|---|---|---|
"""
TRIED = ('trains', 'predicts', 'stock_trains', 'stock_predicts')


def representative(family: str) -> str:
    """Return the name of the family's plainest config: ResNet-50 where there is one."""
    files = (CONFIGS / family).glob('*.py')
    file = min(files, key=lambda file: ('r50' not in file.name, len(file.name), file))
    return INSTEAD.get(family, f'{family}/{file.name}')


def adapting(cfg: Config) -> Iterator[dict]:
    """Yield what becomes of a config, and the changes of its model or the lines of the refusals."""
    reasons = []
    for project, result in ((False, 'adapted'), (True, 'with `--project`')):
        try:
            changes = adapt(cfg, project=project).changes
        except UserError as error:
            reasons.append(str(error))
            what = '; '.join(dict.fromkeys(reasons))
            yield dict(result='stock cannot' if isinstance(error, StockError) else 'refused', what=what)
        else:
            changed = [each for each in _settings(changes['model']) if each != 'pretrained=None']
            yield dict(result=result, what=reasons[0] if project else ', '.join(changed), changes=changes)
            return


def row(name: str) -> dict:
    """Return all that is to be said about a config."""
    cfg = read_config(f'mmseg::{name}')
    line = dict(config=name, result='refused', what='')
    found, ended = isolated(adapting, cfg)
    line.update(found)
    line['what'] = '; '.join(filter(None, [line['what'], ended]))
    changes = line.pop('changes', None)
    tries = {'': Adaptation(changes).applied(cfg)} if changes else {}
    for prefix, tried in {**tries, 'stock_': cfg}.items():
        found, ended = isolated(trying, tried)
        line |= {f'{prefix}{key}': found.get(key, ended) for key in ('trains', 'predicts')}
    return line


def page(rows: list[dict]) -> str:
    """Return the page with `rows` in its table."""
    table = ''
    for each in rows:
        reasons = [each[key] for key in TRIED if isinstance(each.get(key), str)]
        notes = [each['what'], *(reason for reason in dict.fromkeys(reasons) if reason not in each['what'])]
        cells = ['yes' if each.get(key) is True else 'no' if key in each else '' for key in TRIED]
        text = ' '.join('; '.join(filter(None, notes)).split()).replace('|', '\\|')
        table += f'| {each["config"]} | {each["result"]} | {" | ".join(cells)} | {text} |\n'
    works, control = ([all(each.get(key) is True for key in keys) for each in rows] for keys in (TRIED[:2], TRIED[2:]))
    counts = '; '.join(f'{key}: {count}' for key, count in Counter(each['result'] for each in rows).most_common())
    alone = sum(c and not w for w, c in zip(works, control))
    summary = (
        f'Of {len(rows)} configs {sum(works)} train and predict with a FasterNet and {sum(control)} with their own '
        f'backbone, {alone} of them with their own alone. {counts.capitalize()}.'
    )
    return TEXT.format(mmseg=version('mmsegmentation'), torch=torch.__version__, summary=summary) + table


def main() -> None:
    warnings.filterwarnings('ignore')
    MMLogger.get_current_instance().setLevel('ERROR')
    torch.set_num_threads(1)
    lines = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
    done = {each['config']: each for each in map(json.loads, lines)}
    names = sys.argv[1:]
    families = sorted(path.name for path in CONFIGS.iterdir() if path.name != '_base_')
    for family in names or families:
        name = family if family.endswith('.py') else representative(family)
        if names or name not in done:
            done[name] = row(name)
            with RESULTS.open('a') as file:
                file.write(json.dumps(done[name]) + '\n')
            print(name, done[name]['result'], *(key for key in TRIED if done[name].get(key) is True), flush=True)
    rows = [done[name] for name in sorted(done)]
    RESULTS.write_text(''.join(json.dumps(each) + '\n' for each in rows))
    PAGE.write_text(page(rows))


if __name__ == '__main__':
    main()
