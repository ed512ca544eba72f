"""A report as files: report.json, which alone is read again, report.md, report.csv and pictures."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ...files import put_files, read_json
from ..schema import Report, from_json, to_json
from .markdown import markdown
from .pictures import joined_pictures, pictures
from .tables import flat

# columns that every csv file has, in this order; what else a report holds follows
_CSV = (
    'complete created name kind scope mode dtype device batch_size shape channels_last threads error model_error '
    'latency_ms.p50 latency_ms.p10 latency_ms.p90 latency_ms.p99 latency_ms.mean latency_ms.n latency_ms.warmup '
    'throughput peak_memory peak_memory_of difference labels parameters multiply_adds.total'
).split()
_NUMBERS = ('latency_ms', 'cuda_event_ms', 'throughput', 'peak_memory', 'difference')


def csv_text(report: Report) -> str:
    """Return a report as comma-separated values: a line for each measurement, and one for each model that has none.

    Nested names are dotted, and ``labels`` are all that a line's numbers have, joined by ``;``.
    """
    lines = []
    for model in report.models:
        common = flat(asdict(model)) | dict(complete=report.complete, created=report.created, model_error=model.error)
        del common['error']
        for m in model.measurements or [None]:
            labels = [label for part in (model, m, model.evaluation, model.split) if part for label in part.labels]
            line = dict(common)
            if m:
                for one in model.rooflines:
                    if (one.dtype, one.batch_size) == (m.dtype, m.batch_size):
                        line |= flat(asdict(one), 'roofline')
                line |= flat({name: value for name, value in asdict(m).items() if not (m.error and name in _NUMBERS)})
            line = {name: value for name, value in line.items() if value is not None}
            lines.append(line | dict(labels='; '.join(dict.fromkeys(labels))))
    names = list(dict.fromkeys([*_CSV, *(name for line in lines for name in line)]))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator='\n')
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def save(report: Report, folder: Path) -> None:
    """Write report.json, whole or not at all, into a folder, which is made if need be.

    Raises:
        UserError: If the folder cannot be written.
    """
    put_files(folder, {'report.json': json.dumps(to_json(report), indent=1) + '\n'}, 'the report')


def write(report: Report, folder: Path) -> None:
    """Write report.json, report.md, report.csv and the pictures, each whole or not at all; errors as :func:`save`."""
    save(report, folder)  # before what is made of it
    files = {'report.md': markdown(report), 'report.csv': csv_text(report), **pictures(report)}
    put_files(folder, files, 'the report')


def draw(reports: Sequence[Report], folder: Path, with_paper: bool = False) -> list[str]:
    """Write the pictures of reports that were measured before: of one run all, of several those that join them.

    Args:
        reports (Sequence[Report]): The runs.
        folder (Path): Is made if need be.
        with_paper (bool): Whether figures 7 and 8 have the paper's own panels, too.

    Returns:
        list[str]: The files' names.

    Raises:
        UserError: If the folder cannot be written.
    """
    files = pictures(reports[0]) if len(reports) == 1 else {}
    files |= joined_pictures(reports, with_paper)
    put_files(folder, files, 'the report')
    return list(files)


def load(path: str | Path) -> Report:
    """Read a report.json, or the one in a folder.

    Raises:
        UserError: If there is none, it is not JSON, it is of another schema, or a field is unknown or missing.
    """
    return from_json(*read_json(path, 'report'))
