"""What a report shows, as tables of text: the same in the terminal and in files."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

# the quantities of a kind of model: the evaluator's name, the factor that makes it per cent, the published name
ACCURACIES = {
    'detector': {'box AP': ('bbox_mAP', 100, 'box_ap'), 'mask AP': ('segm_mAP', 100, 'mask_ap')},
    'classifier': {'top-1': ('top1', 1, 'top1'), 'top-5': ('top5', 1, 'top5')},
}
_PUBLISHED = {
    'params_m': 'params (M)',
    'gflops': 'MACs (G)',
    'gflops_1280x800': 'MACs (G)',
    'top1': 'top-1',
    'box_ap': 'box AP',
    'mask_ap': 'mask AP',
    'gpu_ms': 'GPU ms',
    'gpu_fps': 'GPU images/s, batch 32',
    'cpu_ms': 'CPU ms, i9-9900X, 1 thread',
    'arm_ms': 'ARM ms, Cortex-A72, 1 thread',
}
# how a measurement was made: in a column of its own where it differs within a table
_CONDITIONS = {
    'mode': 'mode',
    'dtype': 'dtype',
    'batch_size': 'batch',
    'shape': 'input',
    'device': 'device',
    'threads': 'threads',
    'channels_last': 'channels last',
    'peak_memory_of': 'peak memory of the',
}


@dataclass
class Cell:
    """A text, the sentences that stand under the table for it, and how it looks."""

    text: str = ''
    notes: list[str] = field(default_factory=list)
    style: str = ''  # 'quoted' or 'error'


@dataclass
class Block:
    """A table; a list where it has no columns."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    remarks: list[str] = field(default_factory=list)


class Footnotes:
    """The letters of sentences: a to z, then aa, the same all through a report."""

    def __init__(self) -> None:
        self._letters = {}

    def letter(self, sentence: str) -> str:
        """Of a sentence: the next one, if it is new."""
        if sentence not in self._letters:
            index, letters = len(self._letters) + 1, ''
            while index:
                index, rest = divmod(index - 1, 26)
                letters = chr(ord('a') + rest) + letters
            self._letters[sentence] = letters
        return self._letters[sentence]

    def mark(self, cell: Cell) -> str:
        """The letters of a cell's sentences."""
        return ','.join(self.letter(sentence) for sentence in dict.fromkeys(cell.notes))

    def under(self, block: Block) -> dict[str, str]:
        """The sentences that a block's cells point to, by letter."""
        sentences = [sentence for row in block.rows for cell in row for sentence in cell.notes]
        return dict(sorted((self.letter(s), s) for s in sentences))


def blocks_of(report: dict) -> list[Block]:
    """All that is shown of a report, in every format alike; blocks without rows are left out."""
    models = report['models']
    blocks = []
    for kind in ACCURACIES:
        group = [model for model in models if model['kind'] == kind]
        measured = {m['scope'] for model in group for m in model['measurements']}
        scopes = [scope for scope in (kind, 'backbone', 'training') if scope in measured] or [kind]
        blocks += [_table(group, kind, scope, scope == scopes[0]) for scope in scopes if group]
        blocks.append(_published(group, f'Published for the {kind}s'))
    evaluations = []
    for model in models:
        done = model['evaluation']
        if done:
            metrics = ', '.join(f'{name} {number(value)}' for name, value in (done['metrics'] or {}).items())
            text = f'{model["name"]}, {done["images"]} images of {done["dataset"]}: {metrics}'
            if done['error']:
                text = f'{model["name"]}: not evaluated: {done["error"]}'
            evaluations.append([Cell(text, model['labels'] + done['labels'], 'error' if done['error'] else '')])
    blocks += [
        _comparisons(report),
        _split(models),
        Block(
            'How near the backbones are to the floors',
            [],
            [[_floors(model, roofline)] for model in models for roofline in model['rooflines']],
        ),
        Block('Evaluation', [], evaluations),
        Block('Deviations', [], [[Cell(f'{model["name"]}: {d}')] for model in models for d in model['deviations']]),
        Block('Rows that no installed package builds', [], [[_missing(row)] for row in report['missing']]),
        Block('Errors', [], [[Cell(line, [], 'error')] for line in _errors(models)]),
    ]
    return [block for block in blocks if block.rows]


def _table(models: list[dict], kind: str, scope: str, first: bool) -> Block:
    """The measurements in one scope. The first table of a kind has all its models, and their accuracy."""
    columns = {}
    whole = scope != 'backbone'
    pairs = []
    for model in models:
        own = [m for m in model['measurements'] if m['scope'] == scope] or ([None] if first else [])
        pairs += [(model, m, index == 0) for index, m in enumerate(own)]
    taken = [m for _, m, _ in pairs if m]

    def column(title: str, *cells: Cell) -> None:
        columns[title] = list(cells)

    def of_model(title: str, cell, quoted: bool = False) -> None:
        """What holds for a model stands in its first row alone: nobody evaluated the other modes."""
        column(title, *(cell(model) if leading else Cell() for model, _, leading in pairs))

    def of_measurement(title: str, cell) -> None:
        column(title, *(cell(model, m) if m else Cell() for model, m, _ in pairs))

    column('model', *(_name(model) for model, _, _ in pairs))
    of_model('params (M)' if whole else 'params of the whole (M)', lambda model: _scaled(model['parameters'], 1e6))
    of_model('MACs (G)', lambda model: _multiply_adds(model, whole))
    if whole:
        of_model('by table 4 (G)', lambda model: _scaled((model['multiply_adds'] or {}).get('table4'), 1e9))
    titles = {kind: f'{kind.capitalize()}s', 'backbone': f'Backbones of the {kind}s', 'training': 'Training steps'}
    title, remarks = titles[scope], []
    for key, name in _CONDITIONS.items():
        values = dict.fromkeys(size(m[key]) if key == 'shape' else shown(m[key]) for m in taken)
        if key == 'mode' or len(values) > 1:
            of_measurement(name, lambda _, m, key=key: Cell(size(m[key]) if key == 'shape' else shown(m[key])))
        elif key in ('dtype', 'batch_size', 'shape'):
            title += ''.join(f', {name} {value}' for value in values)
        else:
            remarks += [f'{name} {value}' for value in values]
    column('p50 ms', *(p50(model, m) for model, m, _ in pairs))
    of_measurement('p10-p90', lambda _, m: _result(None, m, 'latency_ms', _spread))
    of_measurement('images/s', lambda model, m: _result(model, m, 'throughput', number))
    of_measurement('peak MiB', lambda _, m: _result(None, m, 'peak_memory', lambda value: f'{value / 2**20:.0f}'))
    of_measurement('off eager', lambda _, m: _result(None, m, 'difference', '{:.1e}'.format))
    if first:
        for quantity in ACCURACIES[kind]:
            of_model(quantity, lambda model, quantity=quantity: _accuracy(model, quantity))
    columns = {title: cells for title, cells in columns.items() if any(cell.text for cell in cells)}
    remarks = ['; '.join(remarks)] if remarks else []
    remarks += ["off eager: relative difference of the outputs from eager fp32's"] if 'off eager' in columns else []
    counted = [model['multiply_adds'] for model in models if model['multiply_adds']]
    remarks += dict.fromkeys(f'MACs are multiply-adds: {c["convention"]}, at {size(c["shape"])}' for c in counted)
    return Block(title, list(columns), [list(row) for row in zip(*columns.values())], remarks)


def _name(model: dict) -> Cell:
    stopped = [f'stopped by an error: {model["error"]}'] if model['error'] else []
    return Cell(model['name'], model['labels'] + stopped)


def _multiply_adds(model: dict, whole: bool) -> Cell:
    counted = model['multiply_adds'] or {}
    return _scaled(counted.get('total') if whole else (counted.get('parts') or {}).get('backbone'), 1e9)


def _scaled(value: int | None, unit: float) -> Cell:
    return Cell('' if value is None else number(value / unit))


def p50(model: dict, m: dict | None) -> Cell:
    """The median time of a measurement, in ms, with all labels that it needs, or why there is none."""
    if m is None:
        return _error(model['error']) if model['error'] else Cell('not measured')
    if m['error']:
        return _error(m['error'])
    time = m['latency_ms']  # none where the run was stopped in the middle
    return Cell(number(time['p50']), model['labels'] + m['labels']) if time else Cell('not measured')


def _spread(latency: dict) -> str:
    return f'{number(latency["p10"])}-{number(latency["p90"])}'


def _error(text: str) -> Cell:
    return Cell('error', [f'error: {text}'], 'error')


def _result(model: dict | None, m: dict, key: str, write) -> Cell:
    """A number of a measurement, with the labels where it follows from the time."""
    if m['error'] or m[key] is None:
        return Cell()
    return Cell(write(m[key]), model['labels'] + m['labels'] if model else [])


def _accuracy(model: dict, quantity: str) -> Cell:
    done = model['evaluation']
    if not done:
        return Cell()
    if done['error']:
        return Cell('error', [f'the evaluation failed: {done["error"]}'], 'error')
    value = measured_accuracy(model, quantity)
    return Cell() if value is None else Cell(f'{value:.1f}', model['labels'] + done['labels'])


def _published(models: list[dict], title: str) -> Block:
    """What the paper says; its times stand under the hardware that they were measured on."""
    rows, columns = {}, {}
    for model in models:
        published = model['published'] or {}
        for key in [*_PUBLISHED, *sorted(set(published) - set(_PUBLISHED))]:
            value = published.get(key)
            if isinstance(value, int | float):
                on = f', {published["hardware"]}' if key.startswith('gpu_') else ''
                column = f'paper: {_PUBLISHED.get(key, key)}{on}'
                columns[column] = None
                rows.setdefault(model['name'], {})[column] = Cell(f'{value:g}', [], 'quoted')
    sources = dict.fromkeys((model['published'] or {}).get('source') for model in models)
    remarks = [f'paper: quoted, not measured here, from {source}' for source in sources if source]
    cells = [[Cell(name), *(row.get(column, Cell()) for column in columns)] for name, row in rows.items()]
    return Block(title, ['model', *columns], cells, remarks)


def _comparisons(report: dict) -> Block:
    """Who is how many times as fast as whom; the slower one stands second, unless they are within the noise."""
    models = {model['name']: model for model in report['models']}
    lines = []
    for c in report['comparisons']:
        names, labels = [c['a'], c['b']], []
        for side in names:
            # 'name [mode]' or 'name [mode dtype]' where they differ
            name, _, how = side.removesuffix(']').partition(' [')
            alike = {key: c[key] for key in ('scope', 'mode', 'dtype', 'batch_size')}
            alike |= dict(zip(('mode', 'dtype'), how.split()))
            if name in models:
                own = [m for m in models[name]['measurements'] if alike.items() <= m.items()]
                labels += models[name]['labels'] + [label for m in own for label in m['labels']]
        low, high = c['interval']
        speeds, noise = (1 / c['ratio'], 1 / high, 1 / low), c['verdict'] == 'within the noise'
        if c['verdict'] == 'b is faster':
            names, speeds = names[::-1], (c['ratio'], low, high)
        said = '{:.2f}x [{:.2f}, {:.2f}]'.format(*speeds) + (', within the noise' if noise else '')
        words = len(c['a'].partition(' [')[2].split())  # what the names say need not be said again
        mode, dtype = c['mode'] if words < 1 else '', c['dtype'] if words < 2 else ''
        lines.append((names[0], said, names[1], mode, c['scope'], dtype, str(c['batch_size']), labels))
    titles = ['', 'times as fast', 'as', 'mode', 'scope', 'dtype', 'batch']
    alike = [i for i in range(3, 7) if len({line[i] for line in lines}) == 1]
    title = ', '.join(['Comparisons', *(f'{titles[i]} {lines[0][i]}' for i in alike if lines[0][i])])
    kept = [i for i in range(7) if i not in alike]
    rows = [[Cell(line[i], line[-1] if i == 1 else []) for i in kept] for line in lines]
    remark = 'in turn: median of the ratios of the turns, and its 95 % interval'
    return Block(title, [titles[i] for i in kept], rows, [remark])


def _split(models: list[dict]) -> Block:
    models = [model for model in models if model['split']]
    parts = list(dict.fromkeys(part for model in models for part in model['split']['parts']))
    rows = []
    for model in models:
        split, labels = model['split'], model['labels'] + model['split']['labels']
        row = [Cell(model['name'], labels), Cell(size(split['shape']))]
        for part in parts:
            ms = split['parts'].get(part)
            row.append(Cell() if ms is None else Cell(f'{number(ms)} ({100 * ms / split["total_ms"]:.0f}%)'))
        row += [Cell(number(split['total_ms']), labels), Cell(number(split['whole_ms']), labels)]
        rows.append([*row, Cell(f'{100 * split["disagreement"]:.1f} %')])
    columns = ['model', 'input', *parts, 'sum', 'whole at once', 'disagreement']
    return Block("Where a detector's time goes, ms", columns, rows)


def _floors(model: dict, roofline: dict) -> Cell:
    """What arithmetic and memory alone would take, and how many times as long each mode takes."""
    arithmetic, memory = roofline['arithmetic_floor_ms'], roofline['memory_floor_ms']
    alike = {key: roofline[key] for key in ('dtype', 'batch_size')} | {'scope': 'backbone'}
    rows = [m for m in model['measurements'] if alike.items() <= m.items() and m['latency_ms']]
    told = [
        f'{m["mode"]} {number(m["latency_ms"]["p50"])} ms, {m["latency_ms"]["p50"] / max(arithmetic, memory):.2f}x the '
        f'higher floor, at {100 * arithmetic / m["latency_ms"]["p50"]:.0f} % of the product'
        for m in rows
    ]
    text = (
        f'{model["name"]}, {roofline["dtype"]}, batch {roofline["batch_size"]}: arithmetic {number(arithmetic)} ms '
        f'(a large matrix product: {number(roofline["matmul_gflops"])} GFLOP/s), memory {number(memory)} ms '
        f'(a copy: {number(roofline["copy_gb_per_s"])} GB/s)'
    )
    return Cell('; '.join([text, *told]), model['labels'] + [label for m in rows for label in m['labels']])


def _missing(row: dict) -> Cell:
    published = {k: v for k, v in (row['published'] or {}).items() if isinstance(v, int | float)}
    quoted = ', '.join(f'{_PUBLISHED.get(key, key)} {value:g}' for key, value in published.items())
    hardware = (row['published'] or {}).get('hardware')
    quoted += f', on {hardware}' if quoted and hardware else ''
    return Cell(f'{row["name"]}: {row["reason"]}' + (f' (quoted from the paper: {quoted})' if quoted else ''))


def _errors(models: list[dict]) -> Iterator[str]:
    """Every error in full."""
    for model in models:
        if model['error']:
            yield f'{model["name"]}: {model["error"]}'
        for m in model['measurements']:
            if m['error']:
                yield f'{model["name"]}, {m["scope"]}, {m["mode"]} {m["dtype"]}, batch {m["batch_size"]}: {m["error"]}'
        if model['evaluation'] and model['evaluation']['error']:
            yield f'{model["name"]}, evaluation: {model["evaluation"]["error"]}'


def shown(value) -> str:
    """A JSON value as text; none is empty."""
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return '' if value is None else str(value)


def size(shape: list[int]) -> str:
    """A shape as text, joined by x."""
    return 'x'.join(map(str, shape))


def flat(value, key: str = '') -> dict:
    """Scalars by dotted names: shapes and texts joined, without samples, layers and labels."""
    if isinstance(value, list):
        return {key: size(value) if key.endswith('shape') else '; '.join(map(str, value))}
    if not isinstance(value, dict):
        return {key: value}
    found = {}
    for name, inner in value.items():
        if name not in ('samples', 'layers', 'measurements', 'labels', 'rooflines'):
            found |= flat(inner, f'{key}.{name}' if key else str(name))
    return found


def number(value: float) -> str:
    """A number with three digits, or all before the point, and without an exponent."""
    if not math.isfinite(value):
        return str(value)
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f'{value:.{min(max(digits, 0), 6)}f}'


def device_name(report: dict, device: str) -> str:
    """What stands behind 'cpu' or 'cuda:0' in a report."""
    machine = report['environment']['before']
    if device.startswith('cuda') and machine['gpu']:
        return machine['gpu']['name']
    return machine['host']['cpu'] if device == 'cpu' else device


def measured_accuracy(model: dict, quantity: str) -> float | None:
    """A model's evaluated accuracy in per cent; None where it was not evaluated."""
    wanted, factor, _ = ACCURACIES[model['kind']][quantity]
    for name, value in ((model['evaluation'] or {}).get('metrics') or {}).items():
        if name.rpartition('/')[2] == wanted:
            return value * factor
    return None
