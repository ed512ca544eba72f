"""What was measured here, from report.json and study.json files: who took how many times as long as whom."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import UserError
from ...files import read_json
from ..render.tables import device_name
from ..schema import Measurement, Model, Report, from_json

STUDY = 'fasternet_mm.study/1'


class Times(NamedTuple):
    """Hold how many times as long one network took as another, with a 95 % interval."""

    ratio: float
    low: float
    high: float

    @property
    def inverse(self) -> 'Times':
        """Return the same of the other network."""
        return Times(1 / self.ratio, 1 / self.high, 1 / self.low)

    def over(self, other: 'Times') -> 'Times':
        """Return a quotient of two ratios to the same network; widths add up in squares, on a logarithmic scale."""
        ratio = self.ratio / other.ratio
        below, above = (
            math.hypot(math.log(a.ratio / a.low), math.log(b.high / b.ratio)) for a, b in ((self, other), (other, self))
        )
        return Times(ratio, ratio * math.exp(-below), ratio * math.exp(above))

    def __str__(self) -> str:
        return f'{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]'


@dataclass
class Run:
    """Hold what one file has of one way of running: one device, mode, dtype and batch size."""

    path: Path
    report: Report
    first: Measurement
    rows: dict[str, tuple[Model, Measurement]] = field(default_factory=dict)  # by the published name, if there is one

    @property
    def where(self) -> str:
        """Return the device and the batch size, as text."""
        m = self.first
        threads = f', {m.threads} thread{"s" if m.threads > 1 else ""}' if m.device == 'cpu' else ''
        return f'{device_name(self.report, m.device)}{threads}, batch {m.batch_size}'

    @property
    def how(self) -> str:
        """Return the mode, the dtype and the memory format, as text."""
        m = self.first
        return f'{m.mode} {m.dtype}' + (', channels-last' if m.channels_last else '')

    @property
    def device(self) -> str:
        """Return 'GPU', 'CPU' or 'ARM', as the paper tells devices apart."""
        if self.first.device.startswith('cuda'):
            return 'GPU'
        return 'ARM' if 'aarch64' in self.report.environment.before.host.platform else 'CPU'

    def ms(self, name: str) -> float:
        """Return the median latency of a network."""
        return self.rows[name][1].latency_ms.p50

    def top1(self, name: str) -> float | None:
        """Return the published accuracy of a network."""
        published = self.rows[name][0].published
        return published and published.top1

    def times(self, a: str, b: str) -> Times:
        """Return how many times as long `a` took as `b`.

        What took turns is compared turn by turn, what took turns with one and the same network through that; of the
        rest medians are compared, with an interval by bootstrap.
        """
        if a == b:
            return Times(1.0, 1.0, 1.0)
        known = self._in_turn
        if (a, b) in known:
            return known[a, b]
        for c in self.rows:
            if (a, c) in known and (b, c) in known:
                return known[a, c].over(known[b, c])
        return _medians(*(self.rows[name][1].latency_ms.samples for name in (a, b)))

    @cached_property
    def _in_turn(self) -> dict[tuple[str, str], Times]:
        m, names = self.first, {model.name: name for name, (model, _) in self.rows.items()}
        found = {}
        for one in self.report.comparisons:
            a, b = one.side_a, one.side_b
            alike = (one.scope, one.batch_size) == (m.scope, m.batch_size)
            ways = {(a.mode, a.dtype), (b.mode, b.dtype), (m.mode, m.dtype)}
            # a comparison's other side may be a reference that the report has in another place
            if alike and len(ways) == 1 and a.model in names and b.model in names:
                times = Times(one.ratio, *one.interval)
                found[names[a.model], names[b.model]] = times
                found[names[b.model], names[a.model]] = times.inverse
        return found


def _medians(a: Sequence[float], b: Sequence[float], resamples: int = 2000) -> Times:
    draw = np.random.default_rng(0)
    medians = [np.median(np.asarray(one)[draw.integers(0, len(one), (resamples, len(one)))], axis=1) for one in (a, b)]
    low, high = np.percentile(medians[0] / medians[1], [2.5, 97.5]).tolist()
    return Times(float(np.median(a) / np.median(b)), low, high)


@dataclass
class Evidence:
    """Hold all files, the newest last."""

    reports: list[tuple[Path, Report]]
    studies: list[tuple[Path, dict]]

    def runs(self, scope: str, *names: str, enough: Callable[[Run], bool] = lambda run: True) -> list[Run]:
        """Return the run of each way that has all networks named and is `enough`: that of most rows, or the newest.

        As in the paper, a GPU's is in the largest batch size of the report, and others' in the smallest.
        """
        chosen = {}
        for path, report in self.reports:
            for run in _runs(path, report, scope):
                if all(name in run.rows for name in names) and enough(run):
                    before = chosen.setdefault((run.where, run.how), run)
                    if len(run.rows) >= len(before.rows):
                        chosen[run.where, run.how] = run
        return list(chosen.values())

    def evaluated(self, images: int) -> Iterator[tuple[Path, str, dict[str, dict[str, float]]]]:
        """Yield each report's file and date, and the metrics of its networks by their published names.

        Args:
            images (int): That a network must have been evaluated on, at least.
        """
        for path, report in self.reports:
            known = {}
            for model in report.models:
                done, published = model.evaluation, model.published
                if published and done and done.images >= images:
                    metrics = {name.rpartition('/')[2]: value for name, value in done.metrics.items()}
                    known[published.network or published.backbone] = metrics
            yield path, report.created[:10], known

    def studies_of(self, name: str) -> list[tuple[Path, dict]]:
        """Return the studies of a name whose weights were trained."""
        return [(path, data) for path, data in self.studies if data['study'] == name and trained(data)]


def trained(study: dict) -> bool:
    """Return whether a study saw trained weights: what random ones show says nothing about features."""
    return not any('random weights' in label for label in study['labels'])


def _runs(path: Path, report: Report, scope: str) -> Iterator[Run]:
    found, wanted = {}, {}
    for model in report.models:
        published = model.published
        name = (published and (published.network or published.backbone)) or model.name
        for m in model.measurements:
            if m.scope == scope and m.latency_ms:
                way = m.mode, m.dtype, m.device, m.threads, m.channels_last
                found.setdefault((way, m.batch_size), Run(path, report, m)).rows.setdefault(name, (model, m))
                better = max if m.device.startswith('cuda') else min
                wanted[way] = better(m.batch_size, wanted.get(way, m.batch_size))
    return (run for (way, size), run in found.items() if wanted[way] == size)


def load_evidence(sources: Sequence[str | Path]) -> Evidence:
    """Read reports and studies, by file or by folder; a folder is searched for *report.json and *study.json.

    Raises:
        UserError: If a file is not there or is neither, or a folder has none.
    """
    reports, studies = {}, {}
    for source in map(Path, sources):
        files = sorted([*source.rglob('*report.json'), *source.rglob('*study.json')]) if source.is_dir() else [source]
        if not files:
            raise UserError(f'{source} has neither a *report.json nor a *study.json in it; give files or their folder')
        for path in files:
            data, place = read_json(path, 'report')
            if isinstance(data, dict) and data.get('schema') == STUDY:
                studies[path] = data
            else:
                reports[path] = from_json(data, place)
    by_date = dict(
        reports=sorted(reports.items(), key=lambda item: (item[1].created, str(item[0]))),
        studies=sorted(studies.items(), key=lambda item: (item[1]['created'], str(item[0]))),
    )
    return Evidence(**by_date)
