"""A report as tables, as files and beside others; ``docs/report_schema.md`` says what a report holds."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..errors import UserError
from ..files import AtomicLocalBackend
from .plots import ACCURACIES, device_name, measured_accuracy, number, pictures

SCHEMA = 'fasternet_mm.report/1'

_INCOMPLETE = 'INCOMPLETE: the run was stopped, failed or goes on; what is missing was not measured'
_APART = 'not measured side by side: the runs may differ in clocks, temperature and load, beside what is listed'
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
# columns that every csv file has, in this order; what else a report holds follows
_CSV = (
    'complete created name kind scope mode dtype device batch_size shape channels_last threads error model_error '
    'latency_ms.p50 latency_ms.p10 latency_ms.p90 latency_ms.p99 latency_ms.mean latency_ms.n latency_ms.warmup '
    'throughput peak_memory peak_memory_of difference labels parameters multiply_adds.total'
).split()
_NUMBERS = ('latency_ms', 'cuda_event_ms', 'throughput', 'peak_memory', 'difference')
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
# what no two snapshots agree in
_RESTLESS = ('load_average', 'temperature_c', 'power_w', 'utilization_percent', 'sm_clock_mhz')


@dataclass
class _Cell:
    text: str = ''
    notes: list[str] = field(default_factory=list)
    style: str = ''  # 'quoted' or 'error'


@dataclass
class _Block:
    """A table; a list where it has no columns."""

    title: str
    columns: list[str]
    rows: list[list[_Cell]]
    remarks: list[str] = field(default_factory=list)


class _Footnotes:
    """The letters of sentences: a to z, then aa, the same all through a report."""

    def __init__(self) -> None:
        self._letters = {}

    def letter(self, sentence: str) -> str:
        if sentence not in self._letters:
            index, letters = len(self._letters) + 1, ''
            while index:
                index, rest = divmod(index - 1, 26)
                letters = chr(ord('a') + rest) + letters
            self._letters[sentence] = letters
        return self._letters[sentence]

    def mark(self, cell: _Cell) -> str:
        return ','.join(self.letter(sentence) for sentence in dict.fromkeys(cell.notes))

    def under(self, block: _Block) -> dict[str, str]:
        """The sentences that a block's cells point to, by letter."""
        sentences = [sentence for row in block.rows for cell in row for sentence in cell.notes]
        return dict(sorted((self.letter(s), s) for s in sentences))


def terminal_tables(report: dict) -> Group:
    """A report for the terminal: all but its environment.

    Args:
        report (dict): As ``docs/report_schema.md`` says.

    Returns:
        Group: To print by a :class:`rich.console.Console`.
    """
    parts = [Text(line, 'bold red' if line == _INCOMPLETE else 'dim') for line in _head(report)]
    footnotes = _Footnotes()
    styles = {'quoted': 'dim', 'error': 'red', '': ''}
    for block in _blocks(report):
        parts.append(Text(f'\n{block.title}', 'bold'))
        table = Table(box=box.SIMPLE_HEAD if block.columns else None, show_header=bool(block.columns))
        table.padding = (0, 1, 0, 0)
        for index, title in enumerate(block.columns):
            quoted = any(row[index].style == 'quoted' for row in block.rows)
            right = not any(row[index].text[:1].isalpha() for row in block.rows) and index
            header = Text(title.replace(' ', '\n'), 'dim' if quoted else '')
            table.add_column(header, justify='right' if right else 'left', overflow='fold')
        for row in block.rows:
            table.add_row(*(_marked(cell, footnotes.mark(cell), styles[cell.style]) for cell in row))
        parts.append(table)
        parts += [Text(remark, 'dim') for remark in block.remarks]
        parts += [Text(f'[{letter}] {sentence}') for letter, sentence in footnotes.under(block).items()]
    return Group(*parts)


def _marked(cell: _Cell, mark: str, style: str) -> Text:
    text = Text(cell.text, style)
    if mark:
        text.append(f' [{mark}]', 'yellow')
    return text


def markdown(report: dict) -> str:
    """A report as GitHub's markdown, with the machine, the packages and the models' files at its end.

    Args:
        report (dict): As ``docs/report_schema.md`` says.
    """
    head = '\n\n'.join(f'**{line}**' if line == _INCOMPLETE else _escaped(line) for line in _head(report))
    before, after = (_flat(report['environment'][when] or {}) for when in ('before', 'after'))
    rows = [[_Cell(key), _Cell(_shown(before.get(key))), _Cell(_shown(after.get(key)))] for key in before | after]
    files = []
    for model in report['models']:
        weights = model['checkpoint'] or 'random weights'
        of = [f'config {model["config"] or "of the suite"}']
        of += [f'sha256 {model["config_sha256"]}'] if model['config_sha256'] else []
        of += [f'weights {weights}']
        of += [f'sha256 {model["checkpoint_sha256"]}'] if model['checkpoint_sha256'] else []
        files.append([_Cell(f'{model["name"]}: {", ".join(of)}')])
    blocks = _blocks(report)
    blocks.append(_Block('Models', [], files))
    blocks.append(_Block('Environment', ['', 'before', 'after'], rows))
    return f'# Report\n\n{head}\n\n{_rendered(blocks)}'


def _rendered(blocks: list[_Block]) -> str:
    """Blocks as markdown."""
    footnotes, lines = _Footnotes(), []
    for block in blocks:
        lines += [f'## {_escaped(block.title)}', '']
        if block.columns:
            lines += ['| ' + ' | '.join(map(_escaped, block.columns)) + ' |', '|' + ' --- |' * len(block.columns)]
        for row in block.rows:
            cells = []
            for cell in row:
                text = _escaped(cell.text)
                if text and cell.style == 'quoted':
                    text = f'*{text}*'
                cells.append(text + (f' <sup>{footnotes.mark(cell)}</sup>' if cell.notes else ''))
            lines.append('| ' + ' | '.join(cells) + ' |' if block.columns else '- ' + ' '.join(cells))
        lines.append('')
        for remark in block.remarks:
            lines += [_escaped(remark), '']
        for letter, sentence in footnotes.under(block).items():
            lines += [f'<sup>{letter}</sup> {_escaped(sentence)}', '']
    return '\n'.join(lines).rstrip() + '\n'


def _escaped(text: str) -> str:
    return ' '.join(text.split()).replace('|', '\\|').replace('<', '&lt;')


def _head(report: dict) -> list[str]:
    """The lines at the top."""
    used = dict.fromkeys(m['device'] for model in report['models'] for m in model['measurements'])
    packages = report['environment']['before']['packages']
    facts = [device_name(report, device) for device in used]
    facts += [f'torch {packages["torch"]}'] if 'torch' in packages else []
    facts += [f'suite {report["suite"]}'] if report['suite'] else []
    lines = ['; '.join([*facts, report['created']]), ' '.join(report['command'])]
    return lines if report['complete'] else [_INCOMPLETE, *lines]


def _blocks(report: dict) -> list[_Block]:
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
            evaluations.append([_Cell(text, model['labels'] + done['labels'], 'error' if done['error'] else '')])
    blocks += [
        _comparisons(report),
        _split(models),
        _Block(
            'How near the backbones are to the floors', [], [[_floors(model)] for model in models if model['roofline']]
        ),
        _Block('Evaluation', [], evaluations),
        _Block('Deviations', [], [[_Cell(f'{model["name"]}: {d}')] for model in models for d in model['deviations']]),
        _Block('Rows that no installed package builds', [], [[_missing(row)] for row in report['missing']]),
        _Block('Errors', [], [[_Cell(line, [], 'error')] for line in _errors(models)]),
    ]
    return [block for block in blocks if block.rows]


def _table(models: list[dict], kind: str, scope: str, first: bool) -> _Block:
    """The measurements in one scope. The first table of a kind has all its models, and their accuracy."""
    columns = {}
    whole = scope != 'backbone'
    pairs = []
    for model in models:
        own = [m for m in model['measurements'] if m['scope'] == scope] or ([None] if first else [])
        pairs += [(model, m, index == 0) for index, m in enumerate(own)]
    taken = [m for _, m, _ in pairs if m]

    def column(title: str, *cells: _Cell) -> None:
        columns[title] = list(cells)

    def of_model(title: str, cell, quoted: bool = False) -> None:
        """What holds for a model stands in its first row alone: nobody evaluated the other modes."""
        column(title, *(cell(model) if leading else _Cell() for model, _, leading in pairs))

    def of_measurement(title: str, cell) -> None:
        column(title, *(cell(model, m) if m else _Cell() for model, m, _ in pairs))

    column('model', *(_name(model) for model, _, _ in pairs))
    of_model('params (M)' if whole else 'params of the whole (M)', lambda model: _scaled(model['parameters'], 1e6))
    of_model('MACs (G)', lambda model: _multiply_adds(model, whole))
    if whole:
        of_model('by table 4 (G)', lambda model: _scaled((model['multiply_adds'] or {}).get('table4'), 1e9))
    titles = {kind: f'{kind.capitalize()}s', 'backbone': f'Backbones of the {kind}s', 'training': 'Training steps'}
    title, remarks = titles[scope], []
    for key, name in _CONDITIONS.items():
        values = dict.fromkeys(_size(m[key]) if key == 'shape' else _shown(m[key]) for m in taken)
        if key == 'mode' or len(values) > 1:
            of_measurement(name, lambda _, m, key=key: _Cell(_size(m[key]) if key == 'shape' else _shown(m[key])))
        elif key in ('dtype', 'batch_size', 'shape'):
            title += ''.join(f', {name} {value}' for value in values)
        else:
            remarks += [f'{name} {value}' for value in values]
    column('p50 ms', *(_p50(model, m) for model, m, _ in pairs))
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
    remarks += dict.fromkeys(f'MACs are multiply-adds: {c["convention"]}, at {_size(c["shape"])}' for c in counted)
    return _Block(title, list(columns), [list(row) for row in zip(*columns.values())], remarks)


def _name(model: dict) -> _Cell:
    stopped = [f'stopped by an error: {model["error"]}'] if model['error'] else []
    return _Cell(model['name'], model['labels'] + stopped)


def _multiply_adds(model: dict, whole: bool) -> _Cell:
    counted = model['multiply_adds'] or {}
    return _scaled(counted.get('total') if whole else (counted.get('parts') or {}).get('backbone'), 1e9)


def _scaled(value: int | None, unit: float) -> _Cell:
    return _Cell('' if value is None else number(value / unit))


def _p50(model: dict, m: dict | None) -> _Cell:
    if m is None:
        return _error(model['error']) if model['error'] else _Cell('not measured')
    if m['error']:
        return _error(m['error'])
    time = m['latency_ms']  # none where the run was stopped in the middle
    return _Cell(number(time['p50']), model['labels'] + m['labels']) if time else _Cell('not measured')


def _spread(latency: dict) -> str:
    return f'{number(latency["p10"])}-{number(latency["p90"])}'


def _error(text: str) -> _Cell:
    return _Cell('error', [f'error: {text}'], 'error')


def _result(model: dict | None, m: dict, key: str, write) -> _Cell:
    """A number of a measurement, with the labels where it follows from the time."""
    if m['error'] or m[key] is None:
        return _Cell()
    return _Cell(write(m[key]), model['labels'] + m['labels'] if model else [])


def _accuracy(model: dict, quantity: str) -> _Cell:
    done = model['evaluation']
    if not done:
        return _Cell()
    if done['error']:
        return _Cell('error', [f'the evaluation failed: {done["error"]}'], 'error')
    value = measured_accuracy(model, quantity)
    return _Cell() if value is None else _Cell(f'{value:.1f}', model['labels'] + done['labels'])


def _published(models: list[dict], title: str) -> _Block:
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
                rows.setdefault(model['name'], {})[column] = _Cell(f'{value:g}', [], 'quoted')
    sources = dict.fromkeys((model['published'] or {}).get('source') for model in models)
    remarks = [f'paper: quoted, not measured here, from {source}' for source in sources if source]
    cells = [[_Cell(name), *(row.get(column, _Cell()) for column in columns)] for name, row in rows.items()]
    return _Block(title, ['model', *columns], cells, remarks)


def _comparisons(report: dict) -> _Block:
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
    shown = [i for i in range(7) if i not in alike]
    rows = [[_Cell(line[i], line[-1] if i == 1 else []) for i in shown] for line in lines]
    remark = 'in turn: median of the ratios of the turns, and its 95 % interval'
    return _Block(title, [titles[i] for i in shown], rows, [remark])


def _split(models: list[dict]) -> _Block:
    models = [model for model in models if model['split']]
    parts = list(dict.fromkeys(part for model in models for part in model['split']['parts']))
    rows = []
    for model in models:
        split, labels = model['split'], model['labels'] + model['split']['labels']
        row = [_Cell(model['name'], labels), _Cell(_size(split['shape']))]
        for part in parts:
            ms = split['parts'].get(part)
            row.append(_Cell() if ms is None else _Cell(f'{number(ms)} ({100 * ms / split["total_ms"]:.0f}%)'))
        row += [_Cell(number(split['total_ms']), labels), _Cell(number(split['whole_ms']), labels)]
        rows.append([*row, _Cell(f'{100 * split["disagreement"]:.1f} %')])
    columns = ['model', 'input', *parts, 'sum', 'whole at once', 'disagreement']
    return _Block("Where a detector's time goes, ms", columns, rows)


def _floors(model: dict) -> _Cell:
    """What arithmetic and memory alone would take, and how many times as long each mode takes."""
    roofline = model['roofline']
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
    return _Cell('; '.join([text, *told]), model['labels'] + [label for m in rows for label in m['labels']])


def _missing(row: dict) -> _Cell:
    published = {k: v for k, v in (row['published'] or {}).items() if isinstance(v, int | float)}
    quoted = ', '.join(f'{_PUBLISHED.get(key, key)} {value:g}' for key, value in published.items())
    hardware = (row['published'] or {}).get('hardware')
    quoted += f', on {hardware}' if quoted and hardware else ''
    return _Cell(f'{row["name"]}: {row["reason"]}' + (f' (quoted from the paper: {quoted})' if quoted else ''))


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


def _shown(value) -> str:
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return '' if value is None else str(value)


def _size(shape: list[int]) -> str:
    return 'x'.join(map(str, shape))


def _flat(value, key: str = '') -> dict:
    """Scalars by dotted names: shapes and texts joined, without samples, layers and labels."""
    if isinstance(value, list):
        return {key: _size(value) if key.endswith('shape') else '; '.join(map(str, value))}
    if not isinstance(value, dict):
        return {key: value}
    flat = {}
    for name, inner in value.items():
        if name not in ('samples', 'layers', 'measurements', 'labels'):
            flat |= _flat(inner, f'{key}.{name}' if key else str(name))
    return flat


def csv_text(report: dict) -> str:
    """A report as comma-separated values: a line for each measurement, and one for each model that has none.

    Args:
        report (dict): As ``docs/report_schema.md`` says.

    Returns:
        str: With a header; nested names are dotted, and ``labels`` are all that a line's numbers have, joined by ``;``.
    """
    lines = []
    for model in report['models']:
        common = _flat(model)
        common['model_error'] = common.pop('error')
        for m in model['measurements'] or [{}]:
            nested = [model, m, model['evaluation'] or {}, model['split'] or {}]
            labels = dict.fromkeys(label for holder in nested for label in holder.get('labels', ()))
            own = _flat({key: value for key, value in m.items() if not m['error'] or key not in _NUMBERS})
            line = {'complete': report['complete'], 'created': report['created'], **common, **own}
            line = {name: value for name, value in line.items() if value is not None}
            lines.append(line | {'labels': '; '.join(labels)})
    names = list(dict.fromkeys([*_CSV, *(name for line in lines for name in line)]))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator='\n')
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def save(report: dict, folder: Path) -> None:
    """Write report.json, whole or not at all.

    Args:
        report (dict): As ``docs/report_schema.md`` says.
        folder (Path): Made if need be.

    Raises:
        UserError: If the folder cannot be written.
    """
    _put(folder, {'report.json': json.dumps(report, indent=1) + '\n'})


def write(report: dict, folder: Path) -> None:
    """Write report.json, report.md, report.csv and the pictures, each whole or not at all.

    Args:
        report (dict): As ``docs/report_schema.md`` says.
        folder (Path): Made if need be.

    Raises:
        UserError: If the folder cannot be written.
    """
    save(report, folder)  # before what is made of it
    _put(folder, {'report.md': markdown(report), 'report.csv': csv_text(report), **pictures(report)})


def _put(folder: Path, files: dict[str, str | bytes]) -> None:
    try:
        for name, content in files.items():
            AtomicLocalBackend().put(content.encode() if isinstance(content, str) else content, Path(folder, name))
    except OSError as error:
        raise UserError(f'the report cannot be written to {folder}: {error}; choose another folder') from error


def load(path: str | Path) -> dict:
    """Read a report.

    Args:
        path (str | Path): A report.json, or the folder that holds one.

    Returns:
        dict: As ``docs/report_schema.md`` says.

    Raises:
        UserError: If there is none, it is not JSON, or it is of another schema.
    """
    path = Path(path)
    if path.is_dir():
        path /= 'report.json'
    try:
        report = json.loads(path.read_text('utf-8'))
    except OSError as error:
        raise UserError(f'report not found: {path} ({error.strerror}); give a report.json or its folder') from error
    except ValueError as error:
        raise UserError(f'{path} is not JSON: {error}; give a report.json of tools/report.py') from error
    schema = report.get('schema') if isinstance(report, dict) else None
    if schema != SCHEMA:
        raise UserError(f'{path} has schema {schema!r}, not {SCHEMA!r}; measure again with this tools/report.py')
    return report


def compare(reports: list[dict], names: list[str]) -> str:
    """Put the times of several runs beside each other.

    Args:
        reports (list[dict]): As ``docs/report_schema.md`` says.
        names (list[str]): What to call them.

    Returns:
        str: Markdown: what differs between the runs, the times with their ratios to the first run, and what was
            measured in one run only.
    """
    measured = [_by_identity(report) for report in reports]
    keys = list(dict.fromkeys(key for run in measured for key in run))
    rows, lonely = [], []
    for key in keys:
        inside = [name for name, run in zip(names, measured) if key in run]
        if len(inside) == 1:
            lonely.append([_Cell(f'{inside[0]}: {", ".join(filter(None, key[:6]))}')])
            continue
        cells = [_p50(*run[key]) if key in run else _Cell() for run in measured]
        rows.append([*(_Cell(part) for part in key[:6]), *cells, *_ratios([run.get(key) for run in measured])])
    titles = ['model', 'scope', 'mode', 'dtype', 'batch', 'input', *(f'{name}, p50 ms' for name in names)]
    titles += [f'{name} / {names[0]}, not measured side by side' for name in names[1:]]
    differing = _differences(reports, measured)
    blocks = [_Block('What differs', ['', *names], differing)] if differing else []
    blocks += [_Block('Times', titles, rows)] if rows else []
    blocks += [_Block('Measured in one run only', [], lonely)] if lonely else []
    head = [f'# {" and ".join(map(_escaped, names))}']
    head += [f'**{_escaped(name)} is {_INCOMPLETE}**' for name, run in zip(names, reports) if not run['complete']]
    head += [] if differing else ['Environment, options, configs and weights are the same.']
    head += [] if rows else ['No measurement is in more than one run.']
    return '\n\n'.join([*head, _rendered(blocks)])


def _by_identity(report: dict) -> dict[tuple, tuple[dict, dict]]:
    """Models and their measurements by what is measured; a second one of the same kind is counted."""
    found, seen = {}, Counter()
    for model in report['models']:
        for m in model['measurements']:
            key = (model['name'], m['scope'], m['mode'], m['dtype'], str(m['batch_size']), _size(m['shape']))
            found[*key, seen[key]] = model, m
            seen[key] += 1
    return found


def _ratios(pairs: list[tuple | None]) -> list[_Cell]:
    """p50 over that of the first run, of all runs but the first."""
    p50 = [pair[1]['latency_ms']['p50'] if pair and pair[1]['latency_ms'] else None for pair in pairs]
    return [_Cell(f'{t / p50[0]:.2f}x', [_APART]) if t and p50[0] else _Cell() for t in p50[1:]]


def _differences(reports: list[dict], measured: list[dict]) -> list[list[_Cell]]:
    """A row for each fact of the environment, the options, the measurements and the models that is not the same."""
    facts = []
    for report, run in zip(reports, measured):
        known = _flat(report['environment']['before']) | _flat(report['options'], 'options')
        for key in ('device', 'threads', 'channels_last'):
            known[f'measurements.{key}'] = ', '.join(sorted({str(m[key]) for _, m in run.values()}))
        facts.append(known)
    for key in ('config_sha256', 'checkpoint_sha256', 'parameters'):
        of = [{model['name']: model[key] for model in report['models']} for report in reports]
        for name in [name for name in of[0] if all(name in other for other in of)]:
            for known, values in zip(facts, of):
                known[f'{name}: {key}'] = values[name]
    rows = []
    for key in dict.fromkeys(key for known in facts for key in known):
        values = [known.get(key) for known in facts]
        if not _same(key, values):
            rows.append([_Cell(key), *(_Cell(_shown(value) or '-') for value in values)])
    return rows


def _same(key: str, values: list) -> bool:
    if all(value == values[0] for value in values):
        return True
    restless = any(name in key.split('.') for name in _RESTLESS)
    if not restless or any(isinstance(value, str | None) for value in values):
        return False
    return max(values) - min(values) <= 0.1 * max(map(abs, values))
