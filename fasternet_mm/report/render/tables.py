"""What a report shows, as tables of text: the same in the terminal and in files."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..schema import Agreement, Comparison, Evaluation, Measurement, Missing, Model, Published, Report, Roofline, Side
from . import operators

INCOMPLETE = 'INCOMPLETE: the run was stopped, failed or goes on; what is missing was not measured'
# the quantities of a kind of model: the evaluator's name, the factor that makes it per cent, the published name
ACCURACIES = {
    'detector': {'box AP': ('bbox_mAP', 100, 'box_ap'), 'mask AP': ('segm_mAP', 100, 'mask_ap')},
    'classifier': {'top-1': ('top1', 1, 'top1'), 'top-5': ('top5', 1, 'top5')},
}
_PUBLISHED = dict(
    params_m='params (M)', gflops='MACs (G)', gflops_1280x800='MACs (G)', top1='top-1', box_ap='box AP',
    mask_ap='mask AP', gpu_ms='GPU ms', gpu_fps='GPU images/s, batch 32', cpu_ms='CPU ms, i9-9900X, 1 thread',
    arm_ms='ARM ms, Cortex-A72, 1 thread',
)  # fmt: skip
# how a measurement was made: in a column of its own where it differs within a table
_CONDITIONS = dict(
    mode='mode', dtype='dtype', batch_size='batch', shape='input', device='device', threads='threads',
    channels_last='channels last', peak_memory_of='peak memory of the',
)  # fmt: skip

_REMARKS = {
    'off eager': "relative difference of the outputs from eager fp32's",
    'memory access (M)': 'elements for one image by equations 2, 3 and 5 of the paper, weights included, GConv alike',
    'bound by': "a layer's FLOP per byte, each read or written once, beside the ridge of the roofline, where a large "
    "product's FLOP/s meet a copy's bytes/s",
    'like eager': "how many of eager fp32's detections are found, with the largest difference of a box and of a score",
}


@dataclass
class Cell:
    """Hold a text, the sentences that stand under the table for it, and how it looks."""

    text: str = ''
    notes: Sequence[str] = ()
    style: str = ''  # 'quoted' or 'error'


@dataclass
class Block:
    """Hold a table, or a list where it has no columns."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    remarks: list[str] = field(default_factory=list)


class Footnotes(dict):
    """Map sentences to letters: a to z, then aa, the same all through a report."""

    def __missing__(self, sentence: str) -> str:
        index, letters = len(self) + 1, ''
        while index:
            index, rest = divmod(index - 1, 26)
            letters = chr(ord('a') + rest) + letters
        self[sentence] = letters
        return letters

    def mark(self, cell: Cell) -> str:
        """Return the letters of a cell's sentences."""
        return ','.join(self[sentence] for sentence in dict.fromkeys(cell.notes))

    def under(self, block: Block) -> dict[str, str]:
        """Return the sentences that a block's cells point to, by letter."""
        return dict(sorted((self[note], note) for row in block.rows for cell in row for note in cell.notes))


def head(report: Report) -> list[str]:
    """Return the lines at the top of a report."""
    used = dict.fromkeys(m.device for model in report.models for m in model.measurements)
    packages = report.environment.before.packages
    facts = [device_name(report, device) for device in used]
    facts += [f'torch {packages["torch"]}'] if 'torch' in packages else []
    facts += [f'suite {report.suite}'] if report.suite else []
    lines = ['; '.join([*facts, report.created]), ' '.join(report.command)]
    return lines if report.complete else [INCOMPLETE, *lines]


def blocks_of(report: Report) -> list[Block]:
    """Return all that is shown of a report, in every format alike; blocks without rows are left out."""
    models, blocks = report.models, []
    for kind in (*ACCURACIES, 'operator'):
        group = [model for model in models if model.kind == kind]
        measured = {m.scope for model in group for m in model.measurements}
        scopes = [scope for scope in (kind, 'backbone', 'training') if scope in measured] or [kind]
        blocks += [_table(group, kind, scope, scope == scopes[0]) for scope in scopes if group]
        blocks.append(_published(report, group, f'Published for the {kind}s'))
    lists = {
        'What the operators show': [Cell(sentence) for sentence in operators.findings(report)],
        'How near the backbones are to the floors': _floors_of(m for m in models if m.kind != 'operator'),
        'How near the operators are to the floors': _floors_of(m for m in models if m.kind == 'operator'),
        'Evaluation': [_evaluation(model, model.evaluation) for model in models if model.evaluation],
        'Deviations': [Cell(f'{model.name}: {deviation}') for model in models for deviation in model.deviations],
        'Rows that no installed package builds': [_missing(row, _whose(report)) for row in report.missing],
        'Errors': [Cell(line, style='error') for line in _errors(models)],
    }
    blocks += [_comparisons(report), _split([model for model in models if model.split])]
    blocks += [Block(title, [], [[cell] for cell in cells]) for title, cells in lists.items()]
    return [block for block in blocks if block.rows]


def _table(models: list[Model], kind: str, scope: str, first: bool) -> Block:
    """Return the measurements in one scope. The first table of a kind has all its models, and their accuracy."""
    columns = {}
    whole = scope != 'backbone'
    pairs = []
    for model in models:
        own = [m for m in model.measurements if m.scope == scope] or ([None] if first else [])
        pairs += [(model, m, index == 0) for index, m in enumerate(own)]

    def of_model(title: str, cell: Callable[[Model], Cell]) -> None:
        """Fill a model's first row alone: nobody evaluated the other modes."""
        columns[title] = [cell(model) if leading else Cell() for model, _, leading in pairs]

    def of_measurement(title: str, cell: Callable[[Model, Measurement], Cell]) -> None:
        columns[title] = [cell(model, m) if m else Cell() for model, m, _ in pairs]

    columns['model'] = [
        Cell(model.name, model.labels + [f'stopped by an error: {model.error}'] * bool(model.error))
        for model, _, _ in pairs
    ]
    of_model('params (M)' if whole else 'params of the whole (M)', lambda model: _scaled(model.parameters, 1e6))
    of_model('MACs (G)', lambda model: _multiply_adds(model, 'total' if whole else 'backbone'))
    if whole:
        of_model('by table 4 (G)', lambda model: _multiply_adds(model, 'table4'))
    titles = {kind: f'{kind.capitalize()}s', 'backbone': f'Backbones of the {kind}s', 'training': 'Training steps'}
    title, remarks = titles[scope], []
    for key, name in _CONDITIONS.items():
        values = dict.fromkeys(shown(getattr(m, key)) for _, m, _ in pairs if m)
        if key == 'mode' or len(values) > 1:
            of_measurement(name, lambda _, m, key=key: Cell(shown(getattr(m, key))))
        elif key in ('dtype', 'batch_size', 'shape'):
            title += ''.join(f', {name} {value}' for value in values)
        else:
            remarks += [f'{name} {value}' for value in values]
    of_model('memory access (M)', lambda model: _scaled(model.memory_access, 1e6))
    columns['p50 ms'] = [p50(model, m) for model, m, _ in pairs]
    if kind == 'operator':
        of_measurement('GMAC/s', lambda model, m: _result(m, operators.gmacs(model, m), number))
        of_measurement('FLOP/byte', lambda model, m: _result(m, operators.place(model, m), lambda at: number(at[0])))
        of_measurement('bound by', lambda model, m: _result(m, operators.place(model, m), _bound))
    of_measurement('p10-p90', lambda _, m: _result(m, m.latency_ms, lambda t: f'{number(t.p10)}-{number(t.p90)}'))
    of_measurement('images/s', lambda model, m: _result(m, m.throughput, number, model.labels + m.labels))
    of_measurement('peak MiB', lambda _, m: _result(m, m.peak_memory, lambda value: f'{value / 2**20:.0f}'))
    of_measurement('detections', lambda _, m: _result(m, m.detections, '{:.4g}'.format))
    of_measurement('off eager', lambda _, m: _result(m, m.difference, '{:.1e}'.format))
    of_measurement('like eager', lambda _, m: _result(m, m.agreement, _agreement))
    of_measurement('file MB', lambda _, m: _result(m, m.file_size, lambda size: number(size / 1e6)))
    if first:
        for quantity in ACCURACIES.get(kind, ()):
            columns[quantity] = [
                _accuracy(model, (m and m.evaluation) or (model.evaluation if leading else None), quantity)
                for model, m, leading in pairs
            ]
    columns = {title: cells for title, cells in columns.items() if any(cell.text for cell in cells)}
    remarks = ['; '.join(remarks)] if remarks else []
    remarks += [f'{title}: {said}' for title, said in _REMARKS.items() if title in columns]
    counted = [model.multiply_adds for model in models if model.multiply_adds]
    remarks += dict.fromkeys(f'MACs are multiply-adds: {c.convention}, at {shown(c.shape)}' for c in counted)
    return Block(title, list(columns), [list(row) for row in zip(*columns.values())], remarks)


def _multiply_adds(model: Model, part: str) -> Cell:
    counted = model.multiply_adds
    return _scaled(counted and (counted.parts | dict(total=counted.total, table4=counted.table4)).get(part), 1e9)


def _scaled(value: int | None, unit: float) -> Cell:
    return Cell('' if value is None else number(value / unit))


def p50(model: Model, m: Measurement | None) -> Cell:
    """Return the median time of a measurement, in ms, with all labels that it needs, or why there is none."""
    error = model.error if m is None else m.error
    if error:
        return Cell('error', [f'error: {error}'], 'error')
    # there is none where the run was stopped in the middle
    return Cell(number(m.latency_ms.p50), model.labels + m.labels) if m and m.latency_ms else Cell('not measured')


def _result(m: Measurement, value: Any, write: Callable[[Any], str], labels: Sequence[str] = ()) -> Cell:
    return Cell() if m.error or value is None else Cell(write(value), labels)


def _agreement(one: Agreement) -> str:
    return f'{one.matched} of {one.wanted}, {one.box:.2g} px, {one.score:.1e}'


def _bound(at: tuple[float, float]) -> str:
    return f'{"arithmetic" if at[0] > at[1] else "memory"}, ridge {number(at[1])}'


def _accuracy(model: Model, done: Evaluation | None, quantity: str) -> Cell:
    value = measured_accuracy(model, done, quantity)
    if done and done.error:
        return Cell('error', [f'the evaluation failed: {done.error}'], 'error')
    return Cell() if value is None else Cell(f'{value:.1f}', model.labels + done.labels)


def _figures(published: Published | None) -> dict[str, float]:
    return {key: value for key, value in vars(published or Published()).items() if isinstance(value, int | float)}


def _whose(report: Report) -> str:
    """Return whose the published figures are: the paper's, or, of today's peers, those of other sources, too."""
    return 'quoted' if report.suite in ('peers', 'peers_coco') else 'paper'


def _published(report: Report, models: list[Model], title: str) -> Block:
    """Return what was published; the paper's times stand under the hardware that they were measured on."""
    whose = _whose(report)
    rows, columns = {}, {}
    for model in models:
        figures = _figures(model.published)
        figures |= operators.quotients(model.published) if model.kind == 'operator' and model.published else {}
        for key in [*_PUBLISHED, *sorted(figures.keys() - _PUBLISHED.keys())]:
            if key in figures:
                on = f', {model.published.hardware}' if key.startswith('gpu_') else ''
                column = f'{whose}: {_PUBLISHED.get(key, key)}{on}'
                columns[column] = None
                rows.setdefault(model.name, {})[column] = Cell(f'{figures[key]:g}', style='quoted')
    published = {model.name: model.published for model in models if model.name in rows}
    sources = dict.fromkeys(one.source for one in published.values())
    if whose == 'paper':
        remarks = [f'paper: quoted, not measured here, from {source}' for source in sources if source]
    else:
        remarks = ['quoted: not measured here, and, but for FasterNet, not in the paper']
    cells = []
    for name, row in rows.items():
        notes = [f'from {published[name].source}'] if whose == 'quoted' else []
        # of tables 3 and 4 it is on multiply-adds, and stands with the deviations
        notes += filter(None, [published[name].note] if report.suite not in ('table3', 'table4') else [])
        cells.append([Cell(name, notes), *(row.get(column, Cell()) for column in columns)])
    return Block(title, ['model', *columns], cells, remarks)


def _comparisons(report: Report) -> Block:
    """Return who is how many times as fast as whom; the slower one is second, unless they are within the noise."""
    lines = []
    for c in report.comparisons:
        names, (low, high) = [c.a, c.b], c.interval
        speeds, noise = (1 / c.ratio, 1 / high, 1 / low), c.verdict == 'within the noise'
        if c.verdict == 'b is faster':
            names, speeds = names[::-1], (c.ratio, low, high)
        said = '{:.2f}x [{:.2f}, {:.2f}]'.format(*speeds) + (', within the noise' if noise else '')
        # what the names say need not be said again
        dtype = c.dtype if c.side_a.dtype == c.side_b.dtype else ''
        mode = c.mode if dtype and c.side_a.mode == c.side_b.mode else ''
        labels = _labels_of(report, c, c.side_a) + _labels_of(report, c, c.side_b)
        lines.append((names[0], said, names[1], mode, c.scope, dtype, str(c.batch_size), labels))
    titles = ['', 'times as fast', 'as', 'mode', 'scope', 'dtype', 'batch']
    alike = [i for i in range(3, 7) if len({line[i] for line in lines}) == 1]
    title = ', '.join(['Comparisons', *(f'{titles[i]} {lines[0][i]}' for i in alike if lines[0][i])])
    kept = [i for i in range(7) if i not in alike]
    rows = [[Cell(line[i], line[-1] if i == 1 else ()) for i in kept] for line in lines]
    remark = 'in turn: median of the ratios of the turns, and its 95 % interval'
    return Block(title, [titles[i] for i in kept], rows, [remark])


def _labels_of(report: Report, c: Comparison, side: Side) -> list[str]:
    """Return the labels of the model and the measurements that a side of a comparison refers to."""
    labels, wanted = [], (c.scope, side.mode, side.dtype, c.batch_size)
    for model in report.models:
        if model.name == side.model:
            own = [m for m in model.measurements if (m.scope, m.mode, m.dtype, m.batch_size) == wanted]
            labels = model.labels + [label for m in own for label in m.labels]
    return labels


def _split(models: list[Model]) -> Block:
    parts = list(dict.fromkeys(part for model in models for part in model.split.parts))
    rows = []
    for model in models:
        split, labels = model.split, model.labels + model.split.labels
        row = [Cell(model.name, labels), Cell(shown(split.shape))]
        for part in parts:
            ms = split.parts.get(part)
            row.append(Cell() if ms is None else Cell(f'{number(ms)} ({100 * ms / split.total_ms:.0f}%)'))
        row += [Cell(number(split.total_ms), labels), Cell(number(split.whole_ms), labels)]
        rows.append([*row, Cell(f'{100 * split.disagreement:.1f} %')])
    columns = ['model', 'input', *parts, 'sum', 'whole at once', 'disagreement']
    return Block("Where a detector's time goes, ms", columns, rows)


def _floors_of(models: Iterable[Model]) -> list[Cell]:
    return [_floors(model, roofline) for model in models for roofline in model.rooflines]


def _floors(model: Model, roofline: Roofline) -> Cell:
    """Return what arithmetic and memory alone would take, and how many times as long each mode takes."""
    arithmetic, memory = roofline.arithmetic_floor_ms, roofline.memory_floor_ms
    scope = 'operator' if model.kind == 'operator' else 'backbone'
    wanted = scope, roofline.dtype, roofline.batch_size
    rows = [m for m in model.measurements if (m.scope, m.dtype, m.batch_size) == wanted and m.latency_ms]
    text = (
        f'{model.name}, {roofline.dtype}, batch {roofline.batch_size}: arithmetic {number(arithmetic)} ms '
        f'(a large matrix product: {number(roofline.matmul_gflops)} GFLOP/s), memory {number(memory)} ms '
        f'(a copy: {number(roofline.copy_gb_per_s)} GB/s)'
    )
    for m in rows:
        ms = m.latency_ms.p50
        text += f'; {m.mode} {number(ms)} ms, {ms / max(arithmetic, memory):.2f}x the higher floor'
        text += f', at {100 * arithmetic / ms:.0f} % of the product'
    return Cell(text, model.labels + [label for m in rows for label in m.labels])


def _evaluation(model: Model, done: Evaluation) -> Cell:
    if done.error:
        return Cell(f'{model.name}: not evaluated: {done.error}', model.labels + done.labels, 'error')
    metrics = ', '.join(f'{name} {number(value)}' for name, value in done.metrics.items())
    return Cell(f'{model.name}, {done.images} images of {done.dataset}: {metrics}', model.labels + done.labels)


def _missing(row: Missing, whose: str) -> Cell:
    quoted = ', '.join(f'{_PUBLISHED.get(key, key)} {value:g}' for key, value in _figures(row.published).items())
    quoted += f', on {row.published.hardware}' if quoted and row.published.hardware else ''
    origin = 'quoted from the paper' if whose == 'paper' else f'quoted from {row.published and row.published.source}'
    return Cell(f'{row.name}: {row.reason}' + (f' ({origin}: {quoted})' if quoted else ''))


def _errors(models: list[Model]) -> Iterator[str]:
    """Yield every error in full."""
    for model in models:
        found = {model.name: model.error}
        for m in model.measurements:
            found[f'{model.name}, {m.scope}, {m.mode} {m.dtype}, batch {m.batch_size}'] = m.error
        found[f'{model.name}, evaluation'] = model.evaluation and model.evaluation.error
        yield from (f'{where}: {error}' for where, error in found.items() if error)


def shown(value: Any) -> str:
    """Return a JSON value as text, a shape as 224x224; none is empty."""
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return 'x'.join(map(str, value)) if isinstance(value, list) else '' if value is None else str(value)


def flat(value: Any, key: str = '') -> dict:
    """Return the scalars of JSON by dotted names: shapes and texts joined, without what has tables of its own."""
    if isinstance(value, list):
        return {key: shown(value) if key.endswith('shape') else '; '.join(map(str, value))}
    if not isinstance(value, dict):
        return {key: value}
    found = {}
    for name, inner in value.items():
        if name not in ('samples', 'layers', 'measurements', 'labels', 'rooflines', 'unsupported'):
            found |= flat(inner, f'{key}.{name}' if key else str(name))
    return found


def number(value: float) -> str:
    """Return a number with three digits, or all before the point, and without an exponent."""
    if not math.isfinite(value):
        return str(value)
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f'{value:.{min(max(digits, 0), 6)}f}'


def device_name(report: Report, device: str) -> str:
    """Return what stands behind 'cpu' or 'cuda:0' in a report."""
    machine = report.environment.before
    if device.startswith('cuda') and machine.gpu:
        return machine.gpu.name
    return machine.host.cpu if device == 'cpu' else device


def measured_accuracy(model: Model, done: Evaluation | None, quantity: str) -> float | None:
    """Return an evaluated accuracy in per cent; None where it was not evaluated."""
    wanted, factor, _ = ACCURACIES[model.kind][quantity]
    for name, value in done.metrics.items() if done else ():
        if name.rpartition('/')[2] == wanted:
            return value * factor
    return None
