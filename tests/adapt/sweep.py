"""Adapt one config of every family of mmdet, train it a step and predict, beside the same of its own backbone.

``python -m tests.adapt.sweep [FAMILY or FAMILY/CONFIG.py ...]`` runs those that are named, or all that have no result
yet, adds a line for each to docs/compatibility.jsonl as it comes, and writes docs/compatibility.md from all of them.
"""

import json
import multiprocessing
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
import mmdet
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from fasternet_mm.adapt import Adaptation, adapt, read_config
from fasternet_mm.adapt.swap import StockError
from fasternet_mm.adapt.trial import TrialModel
from fasternet_mm.engine.explaining import cause
from fasternet_mm.errors import UserError

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
DOCS = Path(__file__).parents[2] / 'docs'
RESULTS, PAGE = DOCS / 'compatibility.jsonl', DOCS / 'compatibility.md'
ALSO = [  # beside the plainest of each family
    'cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py',
    'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py',
    'detectors/detectors_cascade-rcnn_r50_1x_coco.py',
    'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
    'faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py',
    'sort/faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py',
    'strongsort/strongsort_yolox_x_8xb4-80e_crowdhuman-mot20train_test-mot20test.py',
    'yolox/yolox_s_8xb8-300e_coco.py',
]
NOTES = {  # what lies behind a line that does not say it
    'cascade_rpn/cascade-rpn_r50-caffe_fpn_1x_coco.py': "mmdet's RPN does not tell this head the number of classes",
    'queryinst/queryinst_r50_fpn_1x_coco.py': 'untrained, it finds boxes outside of the image, where no mask can be',
    'ssd/ssd300_coco.py': 'in mmdet 3.3 no SSD predicts: the code of all heads asks for a loss_cls, which its has not',
    'tridentnet/tridentnet_r50-caffe_1x_coco.py': 'the method is its backbone',
}
SECONDS = 120  # of one CPU core, for each of three processes
BYTES = 12 << 30
TEXT = """# Which configs of mmdet can have a FasterNet?

One config of every family of mmdet {mmdet}, and some more, adapted to T0 as [the page about it](adapt.md) says, with
torch {torch} and {mmcv} on a CPU. Each is then built with random weights, trained for one step by its own
optimizer and made to predict, on two made-up images of 128 to 512 pixels, as `--check` does. The same is done with its
own backbone, as the control. No loss is NaN or infinite where it says yes. Whether a detector learns is another matter:
nobody has trained these. Written by `python -m tests.adapt.sweep` from `compatibility.jsonl`.

- **adapted**: these settings of the model change beside the backbone and the pixels' mean, std and order.
- **with `--project`**: it takes a 1x1 convolution and resampling behind each output, for the reason given.
- **refused**: FasterNet cannot take the old backbone's place.
- **stock cannot**: with its own backbone, too, it cannot be built or run here. Nothing is written then.

Installed were {optional}.
Models that read text have a small random language model here, since a real one would be downloaded.

{summary}

| config | result | trains | predicts | stock trains | stock predicts | what changes, or the reason |
|---|---|---|---|---|---|---|
"""
OPTIONAL = ('motmetrics', 'lap', 'transformers', 'fairscale', 'scikit-learn', 'scikit-image', 'timm', 'mmpretrain')


def representative(family: str) -> str | None:
    """Return the name of the family's plainest config that has a model: ResNet-50 and 1x where there are."""
    files = sorted(
        (CONFIGS / family).glob('*.py'), key=lambda f: ('r50' not in f.name, '1x' not in f.name, len(f.name), f)
    )
    for file in files:
        try:
            if 'model' in read_config(f'mmdet::{family}/{file.name}'):
                return f'{family}/{file.name}'
        except UserError:  # its base is not there
            continue
    return None


def adapting(cfg: Config) -> Iterator[dict]:
    """Yield what becomes of a config, and the changes of its model or the line of the refusal."""
    try:
        changes = adapt(cfg).changes
        yield dict(result='adapted', what=', '.join(_settings(changes['model'])), changes=changes)
        return
    except StockError as error:
        yield dict(result='stock cannot', what=str(error))
        return
    except UserError as error:
        line = str(error)
    try:
        yield dict(result='with `--project`', what=line, changes=adapt(cfg, project=True).changes)
    except UserError:
        yield dict(result='refused', what=line)


def _settings(changes: dict, prefix: str = '') -> Iterator[str]:
    for key, value in changes.items():
        if key == 'teacher_config':
            yield f'{prefix}{key}=that of the installed mmdet'
        elif key == 'backbone':
            if 'out_indices' in value:
                yield f'{prefix}backbone.out_indices={value["out_indices"]}'
        elif isinstance(value, dict):
            yield from _settings(value, f'{prefix}{key}.')
        elif isinstance(value, list) and isinstance(value[0], dict):
            yield f'{prefix}{key}.0.in_channels={value[0]["in_channels"]}'
        elif key not in ('mean', 'std', 'bgr_to_rgb', 'to_rgb'):
            yield f'{prefix}{key}={value}'


def trying(cfg: Config) -> Iterator[dict]:
    """Yield whether a config trains a step, then whether it predicts: True, or the reason why not."""
    for seed in (0, 1):  # some losses fail by chance on random weights, such as PAA's mixture of Gaussians
        torch.manual_seed(seed)
        model, failed = TrialModel(cfg), False
        for key, step in (('trains', model.train_step), ('predicts', model.predict)):
            try:
                yield {key: True if step() else 'mmdet trains its parts on their own'}
            except UserError as error:
                failed = True
                yield {key: _reason(error)}
        if not failed:
            return


def _reason(error: UserError) -> str:
    return cause(error.__cause__) if error.__cause__ else str(error)


def isolated(function: Callable[[Config], Iterator[dict]], cfg: Config) -> tuple[dict, str]:
    """Collect what `function` yields in a process of its own, and why it ended early, or ''."""
    context = multiprocessing.get_context('fork')  # all imports are done
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, function, cfg), daemon=True)
    process.start()
    sender.close()
    found = {}
    while True:
        try:
            found.update(receiver.recv())
        except EOFError:
            break
    process.join()
    if process.exitcode == -signal.SIGXCPU:
        return found, f'does not end in {SECONDS} s'
    ended = found.pop('error', None) or (f'ended with exit code {process.exitcode}' if process.exitcode else '')
    return found, ended


def _work(sender, function: Callable, cfg: Config) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    try:
        for each in function(cfg):
            sender.send(each)
    except UserError as error:
        sender.send(dict(error=_reason(error)))


def row(name: str) -> dict:
    """Return all that is to be said about a config."""
    try:
        cfg = read_config(f'mmdet::{name}')
    except UserError as error:
        return dict(config=name, result='stock cannot', what=str(error).replace(f'{CONFIGS}/', ''))
    found, ended = isolated(adapting, cfg)
    line = dict(config=name, result='refused', what=ended)
    line.update(found)
    changes = line.pop('changes', None)
    tries = {'stock_': cfg}
    if changes is not None:
        tries = {'': Adaptation(changes).applied(cfg), **tries}
    for prefix, tried in tries.items():
        found, ended = isolated(trying, tried)
        line |= {prefix + key: found.get(key, ended) for key in ('trains', 'predicts')}
    return line


def results() -> dict[str, dict]:
    """Return the newest result of each config, by its name."""
    lines = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
    return {each['config']: each for each in map(json.loads, lines)}


def page(rows: list[dict]) -> str:
    """Return the page with `rows` in its table."""
    keys = ('trains', 'predicts', 'stock_trains', 'stock_predicts')
    table = ''
    for each in rows:
        notes = [' '.join(each['what'].split())]
        for reason in dict.fromkeys(each[key] for key in keys if isinstance(each.get(key), str)):
            where = ', '.join(key.replace('_', ' ') for key in keys if each.get(key) == reason)
            notes.append(f'**{where}**: {" ".join(reason.split())}')
        if not all(each.get(key) is True for key in keys):
            notes.append(NOTES.get(each['config'], ''))
        cells = ['yes' if each.get(key) is True else 'no' if each.get(key) else '' for key in keys]
        text = '; '.join(filter(None, notes)).replace('|', '\\|')
        table += f'| {each["config"]} | {each["result"]} | {" | ".join(cells)} | {text} |\n'
    families = [each for each in rows if each['config'] not in ALSO]
    others = [each for each in rows if each['config'] in ALSO]
    summary = f'Of {len(families)} families {_counted(families)} Of {len(others)} other configs {_counted(others)}'
    optional = ', '.join(f'{name} {version(name)}' for name in OPTIONAL if _is_installed(name))
    mmcv = next(f'{name} {version(name)}' for name in ('mmcv-lite', 'mmcv') if _is_installed(name))
    versions = dict(mmdet=mmdet.__version__, torch=torch.__version__, mmcv=mmcv, optional=optional)
    return TEXT.format(**versions, summary=summary) + table


def _counted(rows: list[dict]) -> str:
    works, control = ([each.get(f'{prefix}trains') is True and each.get(f'{prefix}predicts') is True for each in rows]
                      for prefix in ('', 'stock_'))  # fmt: skip
    counts = ', '.join(f'{count} {key}' for key, count in Counter(each['result'] for each in rows).most_common())
    return (
        f'{sum(works)} train and predict with a FasterNet, {sum(control)} with their own backbone, '
        f'{sum(its and not ours for ours, its in zip(works, control))} with their own alone ({counts}).'
    )


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ImportError:
        return False


def main() -> None:
    warnings.filterwarnings('ignore')
    MMLogger.get_current_instance().setLevel('ERROR')
    torch.set_num_threads(1)
    done = results()
    names = sys.argv[1:]
    families = [path.name for path in CONFIGS.iterdir() if path.name != '_base_']
    wanted = [name if name.endswith('.py') else representative(name) for name in names or [*families, *ALSO]]
    wanted = sorted(name for name in wanted if name and (names or name not in done))
    for index, name in enumerate(wanted, 1):
        started = time.perf_counter()
        line = row(name)
        done[name] = line
        with RESULTS.open('a') as file:
            file.write(json.dumps(line) + '\n')
        yes = [key for key, value in line.items() if value is True]
        seconds = time.perf_counter() - started
        print(f'{index}/{len(wanted)} {name}: {line["result"]}; {", ".join(yes)} ({seconds:.0f} s)', flush=True)
    rows = [done[name] for name in sorted(done)]
    RESULTS.write_text(''.join(json.dumps(each) + '\n' for each in rows))
    PAGE.write_text(page(rows))


if __name__ == '__main__':
    main()
