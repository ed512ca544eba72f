"""What of several reports may stand in one panel: classifiers that one device ran in one way."""

from collections.abc import Sequence
from typing import NamedTuple

from ...schema import Measurement, Model, Published, Report
from ..tables import device_name


class Point(NamedTuple):
    """Hold a measurement, with what it is of."""

    report: Report
    model: Model
    m: Measurement


def ways(reports: Sequence[Report]) -> dict[str, list[Point]]:
    """Return the measurements of whole classifiers by device, threads, mode, dtype and memory format.

    Of one network in one batch size the newest stands. Ways in which a single network ran are left out.
    """
    found = {}
    for report in sorted(reports, key=lambda report: report.created):
        for model in report.models:
            for m in model.measurements if model.kind == 'classifier' else ():
                if m.scope == 'classifier' and m.latency_ms:
                    way = found.setdefault(_way(report, m), {})
                    way[model.name, m.batch_size] = Point(report, model, m)
    return {way: list(points.values()) for way, points in found.items() if len({name for name, _ in points}) > 1}


def _way(report: Report, m: Measurement) -> str:
    threads = f', {m.threads} thread{"s" if m.threads > 1 else ""}' if m.device == 'cpu' else ''
    memory = ', channels-last' if m.channels_last else ''
    return f'{device_name(report, m.device)}{threads}, {m.mode} {m.dtype}{memory}'


def name_of(model: Model) -> str:
    """Return a network's published name, where it has one."""
    return (model.published and model.published.network) or model.name


def published_rows(reports: Sequence[Report]) -> list[Published]:
    """Return what was published of the reports' classifiers, those that could not be built included, once each."""
    rows = {}
    for report in reports:
        models = [(model.name, model.published) for model in report.models if model.kind == 'classifier']
        for name, row in [*models, *((row.name, row.published) for row in report.missing)]:
            if row and row.network:
                rows.setdefault(row.network or name, row)
    return list(rows.values())
