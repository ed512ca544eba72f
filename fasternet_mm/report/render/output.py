"""A report in the terminal and as files; ``docs/report_schema.md`` says what a report holds."""

import csv
import io
import json
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ...errors import UserError
from ...files import AtomicLocalBackend
from .plots import pictures
from .tables import Block, Cell, Footnotes, blocks_of, device_name, flat, shown

SCHEMA = 'fasternet_mm.report/1'
INCOMPLETE = 'INCOMPLETE: the run was stopped, failed or goes on; what is missing was not measured'
# columns that every csv file has, in this order; what else a report holds follows
_CSV = (
    'complete created name kind scope mode dtype device batch_size shape channels_last threads error model_error '
    'latency_ms.p50 latency_ms.p10 latency_ms.p90 latency_ms.p99 latency_ms.mean latency_ms.n latency_ms.warmup '
    'throughput peak_memory peak_memory_of difference labels parameters multiply_adds.total'
).split()
_NUMBERS = ('latency_ms', 'cuda_event_ms', 'throughput', 'peak_memory', 'difference')


def terminal_tables(report: dict) -> Group:
    """A report for the terminal: all but its environment.

    Args:
        report (dict): As ``docs/report_schema.md`` says.

    Returns:
        Group: To print by a :class:`rich.console.Console`.
    """
    parts = [Text(line, 'bold red' if line == INCOMPLETE else 'dim') for line in _head(report)]
    footnotes = Footnotes()
    styles = {'quoted': 'dim', 'error': 'red', '': ''}
    for block in blocks_of(report):
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


def _marked(cell: Cell, mark: str, style: str) -> Text:
    text = Text(cell.text, style)
    if mark:
        text.append(f' [{mark}]', 'yellow')
    return text


def markdown(report: dict) -> str:
    """A report as GitHub's markdown, with the machine, the packages and the models' files at its end.

    Args:
        report (dict): As ``docs/report_schema.md`` says.
    """
    head = '\n\n'.join(f'**{line}**' if line == INCOMPLETE else escaped(line) for line in _head(report))
    before, after = (flat(report['environment'][when] or {}) for when in ('before', 'after'))
    rows = [[Cell(key), Cell(shown(before.get(key))), Cell(shown(after.get(key)))] for key in before | after]
    files = []
    for model in report['models']:
        weights = model['checkpoint'] or 'random weights'
        of = [f'config {model["config"] or "of the suite"}']
        of += [f'sha256 {model["config_sha256"]}'] if model['config_sha256'] else []
        of += [f'weights {weights}']
        of += [f'sha256 {model["checkpoint_sha256"]}'] if model['checkpoint_sha256'] else []
        files.append([Cell(f'{model["name"]}: {", ".join(of)}')])
    blocks = blocks_of(report)
    blocks.append(Block('Models', [], files))
    blocks.append(Block('Environment', ['', 'before', 'after'], rows))
    return f'# Report\n\n{head}\n\n{rendered(blocks)}'


def rendered(blocks: list[Block]) -> str:
    """Blocks as markdown."""
    footnotes, lines = Footnotes(), []
    for block in blocks:
        lines += [f'## {escaped(block.title)}', '']
        if block.columns:
            lines += ['| ' + ' | '.join(map(escaped, block.columns)) + ' |', '|' + ' --- |' * len(block.columns)]
        for row in block.rows:
            cells = []
            for cell in row:
                text = escaped(cell.text)
                if text and cell.style == 'quoted':
                    text = f'*{text}*'
                cells.append(text + (f' <sup>{footnotes.mark(cell)}</sup>' if cell.notes else ''))
            lines.append('| ' + ' | '.join(cells) + ' |' if block.columns else '- ' + ' '.join(cells))
        lines.append('')
        for remark in block.remarks:
            lines += [escaped(remark), '']
        for letter, sentence in footnotes.under(block).items():
            lines += [f'<sup>{letter}</sup> {escaped(sentence)}', '']
    return '\n'.join(lines).rstrip() + '\n'


def escaped(text: str) -> str:
    """A text as one line of markdown, also inside a table."""
    return ' '.join(text.split()).replace('|', '\\|').replace('<', '&lt;')


def _head(report: dict) -> list[str]:
    """The lines at the top."""
    used = dict.fromkeys(m['device'] for model in report['models'] for m in model['measurements'])
    packages = report['environment']['before']['packages']
    facts = [device_name(report, device) for device in used]
    facts += [f'torch {packages["torch"]}'] if 'torch' in packages else []
    facts += [f'suite {report["suite"]}'] if report['suite'] else []
    lines = ['; '.join([*facts, report['created']]), ' '.join(report['command'])]
    return lines if report['complete'] else [INCOMPLETE, *lines]


def csv_text(report: dict) -> str:
    """A report as comma-separated values: a line for each measurement, and one for each model that has none.

    Args:
        report (dict): As ``docs/report_schema.md`` says.

    Returns:
        str: With a header; nested names are dotted, and ``labels`` are all that a line's numbers have, joined by ``;``.
    """
    lines = []
    for model in report['models']:
        common = {'complete': report['complete'], 'created': report['created'], **flat(model)}
        common['model_error'] = common.pop('error')
        for m in model['measurements'] or [{}]:
            nested = [model, m, model['evaluation'] or {}, model['split'] or {}]
            labels = dict.fromkeys(label for holder in nested for label in holder.get('labels', ()))
            own = flat({key: value for key, value in m.items() if not m['error'] or key not in _NUMBERS})
            where = m.get('dtype'), m.get('batch_size')
            roofline = next((one for one in model['rooflines'] if (one['dtype'], one['batch_size']) == where), {})
            line = common | flat(roofline, 'roofline') | own
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
