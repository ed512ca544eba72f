"""A report as GitHub's markdown."""

from dataclasses import asdict

from ..schema import Report
from .tables import INCOMPLETE, Block, Cell, Footnotes, blocks_of, flat, head, shown


def markdown(report: Report) -> str:
    """Return a report as markdown, with the machine, the packages and the models' files at its end."""
    top = [f'**{line}**' if line == INCOMPLETE else escaped(line) for line in head(report)]
    before, after = (flat(asdict(one)) if one else {} for one in vars(report.environment).values())
    rows = [[Cell(key), Cell(shown(before.get(key))), Cell(shown(after.get(key)))] for key in before | after]
    files = []
    for model in report.models:
        of = [f'config {model.config or "of the suite"}']
        of += [f'sha256 {model.config_sha256}'] if model.config_sha256 else []
        of += [f'weights {model.checkpoint or "random weights"}']
        of += [f'sha256 {model.checkpoint_sha256}'] if model.checkpoint_sha256 else []
        files.append([Cell(f'{model.name}: {", ".join(of)}')])
    blocks = [*blocks_of(report), Block('Models', [], files), Block('Environment', ['', 'before', 'after'], rows)]
    return '\n\n'.join(['# Report', *top, rendered(blocks)])


def rendered(blocks: list[Block]) -> str:
    """Return blocks as markdown."""
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
    """Return a text as one line of markdown, also inside a table."""
    return ' '.join(text.split()).replace('|', '\\|').replace('<', '&lt;')
