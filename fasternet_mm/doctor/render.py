"""A diagnosis as tables for a terminal, as markdown, and as JSON."""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from .examination import Diagnosis
from .findings import KINDS, Finding, Severity

SCHEMA = 'fasternet_mm.doctor/1'
_STYLES = {Severity.STOPS: 'bold red', Severity.SPOILS: 'yellow', Severity.NOTICE: 'dim'}
_SHARES = ('small', 'unreached')  # which say their share in place of names
_COLUMNS = ('severity', 'finding', 'count', 'where', 'the first of them')


def sets_told(diagnosis: Diagnosis) -> list[str]:
    """Return a line on each data set, and one on the sizes of its objects."""
    lines = []
    for source in diagnosis.sources:
        line = f'{", ".join(source.places)}: {len(source.paths)} images'
        if (counts := diagnosis.counts.get(source.place)) is not None:
            what = 'labels' if source.labels is not None else 'objects'
            line += f', {counts.total()} {what} of {len(counts)} classes'
        lines.append(line)
        sizes = diagnosis.sizes.get(source.place)
        if sizes is not None and len(sizes.sides):
            reached = (
                sizes.told if sizes.reached is None else f'an anchor reaches {sizes.reached:.1%} with an IoU of 0.5'
            )
            lines.append(f'    {sizes.resize}: {sizes.small} under 8 pixels; {reached}')
    return lines


def verdict(diagnosis: Diagnosis) -> str:
    """Return what it comes to, in one line."""
    counts = {severity: sum(finding.severity is severity for finding in diagnosis.findings) for severity in Severity}
    if not diagnosis.is_bad:
        return f'fit to train on, {counts[Severity.NOTICE]} notices'
    return ', '.join(f'{count} {_PLURALS[severity]}' for severity, count in counts.items() if count)


_PLURALS = {Severity.STOPS: 'findings that stop training', Severity.SPOILS: 'that spoil it', Severity.NOTICE: 'notices'}


def terminal_table(diagnosis: Diagnosis) -> Group:
    """Return the findings and a line on each set, to print by a :class:`rich.console.Console`."""
    parts = [Text(line) for line in sets_told(diagnosis)]
    if diagnosis.findings:
        table = Table(box=box.SIMPLE_HEAD)
        for title in _COLUMNS:
            table.add_column(title, justify='right' if title == 'count' else 'left', overflow='fold')
        for finding in diagnosis.findings:
            severity, *cells = _row(finding)
            table.add_row(Text(severity, _STYLES[finding.severity]), *map(Text, cells))
        parts.append(table)
    return Group(*parts, Text(verdict(diagnosis), 'bold'))


def _row(finding: Finding) -> list[str]:
    more = ', ...' if finding.count > len(finding.names) and finding.kind not in _SHARES else ''
    return [
        finding.severity,
        KINDS[finding.kind].title,
        str(finding.count),
        finding.place,
        ', '.join(finding.names) + more,
    ]


def markdown(diagnosis: Diagnosis) -> str:
    """Return the same as a page."""
    rows = [' | '.join(cell.replace('|', '\\|') for cell in _row(finding)) for finding in diagnosis.findings]
    table = [' | '.join(_COLUMNS), '|'.join(['---'] * len(_COLUMNS)), *rows] if rows else []
    lines = ['# What tools/check_data.py found', '', *(f'- {line}' for line in sets_told(diagnosis)), '']
    return '\n'.join([*lines, *(f'| {row} |' for row in table), '', f'**{verdict(diagnosis)}**', ''])


def to_json(diagnosis: Diagnosis) -> dict:
    """Return the same as plain data."""
    return dict(
        schema=SCHEMA,
        is_bad=diagnosis.is_bad,
        sets=[
            dict(
                places=source.places,
                ann_file=source.ann_file,
                images=len(source.paths),
                classes=list(source.classes),
                counts=dict(diagnosis.counts.get(source.place, {})),
                **_sizes(diagnosis.sizes.get(source.place)),
            )
            for source in diagnosis.sources
        ],
        findings=[
            dict(
                kind=finding.kind,
                severity=finding.severity,
                title=KINDS[finding.kind].title,
                place=finding.place,
                count=finding.count,
                names=finding.names,
            )
            for finding in diagnosis.findings
        ],
    )


def _sizes(sizes) -> dict:
    return {} if sizes is None else dict(resize=sizes.resize, small=sizes.small, reached=sizes.reached)
