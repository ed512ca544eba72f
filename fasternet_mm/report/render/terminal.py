"""A report in the terminal."""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..schema import Report
from .tables import INCOMPLETE, Cell, Footnotes, blocks_of, head


def terminal_tables(report: Report) -> Group:
    """Return all of a report but its environment, to print by a :class:`rich.console.Console`."""
    parts = [Text(line, 'bold red' if line == INCOMPLETE else 'dim') for line in head(report)]
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
