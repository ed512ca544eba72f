"""Several runs beside each other, with what differs between them."""

from collections import Counter
from dataclasses import asdict

from ..schema import Measurement, Model, Report
from .markdown import escaped, rendered
from .tables import INCOMPLETE, Block, Cell, flat, p50, shown

_APART = 'not measured side by side: the runs may differ in clocks, temperature and load, beside what is listed'
# what no two snapshots agree in
_RESTLESS = ('load_average', 'temperature_c', 'power_w', 'utilization_percent', 'sm_clock_mhz')


def compare(reports: list[Report], names: list[str]) -> str:
    """Put the times of several runs beside each other.

    Args:
        reports (list[Report]): The runs.
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
            lonely.append([Cell(f'{inside[0]}: {", ".join(filter(None, key[:6]))}')])
            continue
        cells = [p50(*run[key]) if key in run else Cell() for run in measured]
        rows.append([*(Cell(part) for part in key[:6]), *cells, *_ratios([run.get(key) for run in measured])])
    titles = ['model', 'scope', 'mode', 'dtype', 'batch', 'input', *(f'{name}, p50 ms' for name in names)]
    titles += [f'{name} / {names[0]}, not measured side by side' for name in names[1:]]
    differing = _differences(reports, measured)
    blocks = [Block('What differs', ['', *names], differing)] if differing else []
    blocks += [Block('Times', titles, rows)] if rows else []
    blocks += [Block('Measured in one run only', [], lonely)] if lonely else []
    head = [f'# {" and ".join(map(escaped, names))}']
    head += [f'**{escaped(name)} is {INCOMPLETE}**' for name, run in zip(names, reports) if not run.complete]
    head += [] if differing else ['Environment, options, configs and weights are the same.']
    head += [] if rows else ['No measurement is in more than one run.']
    return '\n\n'.join([*head, rendered(blocks)])


def _by_identity(report: Report) -> dict[tuple, tuple[Model, Measurement]]:
    """Return models and their measurements by what is measured; a second one of the same kind is counted."""
    found, seen = {}, Counter()
    for model in report.models:
        for m in model.measurements:
            key = (model.name, m.scope, m.mode, m.dtype, str(m.batch_size), shown(m.shape))
            found[*key, seen[key]] = model, m
            seen[key] += 1
    return found


def _ratios(pairs: list[tuple | None]) -> list[Cell]:
    """Return p50 over that of the first run, for all runs but the first."""
    times = [pair[1].latency_ms.p50 if pair and pair[1].latency_ms else None for pair in pairs]
    return [Cell(f'{t / times[0]:.2f}x', [_APART]) if t and times[0] else Cell() for t in times[1:]]


def _differences(reports: list[Report], measured: list[dict]) -> list[list[Cell]]:
    """Return a row for each fact of environment, options, measurements and models that is not the same."""
    facts = []
    for report, run in zip(reports, measured):
        known = flat(asdict(report.environment.before)) | flat(report.options, 'options')
        for key in ('device', 'threads', 'channels_last'):
            known[f'measurements.{key}'] = ', '.join(sorted({str(getattr(m, key)) for _, m in run.values()}))
        facts.append(known)
    for key in ('config_sha256', 'checkpoint_sha256', 'parameters'):
        of = [{model.name: getattr(model, key) for model in report.models} for report in reports]
        for name in [name for name in of[0] if all(name in other for other in of)]:
            for known, values in zip(facts, of):
                known[f'{name}: {key}'] = values[name]
    rows = []
    for key in dict.fromkeys(key for known in facts for key in known):
        values = [known.get(key) for known in facts]
        if not _same(key, values):
            rows.append([Cell(key), *(Cell(shown(value) or '-') for value in values)])
    return rows


def _same(key: str, values: list) -> bool:
    if all(value == values[0] for value in values):
        return True
    restless = any(name in key.split('.') for name in _RESTLESS)
    if not restless or any(isinstance(value, str | None) for value in values):
        return False
    return max(values) - min(values) <= 0.1 * max(map(abs, values))
