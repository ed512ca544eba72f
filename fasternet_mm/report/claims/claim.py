"""A claim of the paper, what was found, and the rules that give verdicts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .evidence import Evidence, Run, Times

HOLDS, FAILS = 'holds', 'does not hold'
SMALLER = 'holds in kind, not in size'
NOISE = 'not seen: within the noise'
NOT_MEASURED, UNTESTABLE = 'not measured', 'cannot be tested here'


class Finding(NamedTuple):
    """Hold what one file says of a claim."""

    text: str
    verdict: str
    where: str = 'computed'
    path: Path | None = None
    date: str = ''
    how: str = ''  # mode, dtype and memory format

    @classmethod
    def of(cls, run: Run, text: str, verdict: str) -> 'Finding':
        """Return what a run of a report says."""
        return cls(text, verdict, run.where, run.path, run.report.created[:10], run.how)

    @classmethod
    def counted(cls, run: Run, text: str, verdict: str) -> 'Finding':
        """Return what a run of a report counted, on whatever device."""
        return cls(text, verdict, 'counted', run.path, run.report.created[:10])


Find = Callable[[Evidence], list[Finding]]


@dataclass(frozen=True)
class Claim:
    """Hold a claim, the paper's figure, and how its verdict is computed."""

    place: str  # section, table or figure
    text: str
    paper: str
    find: Find
    needs: str  # what it takes where nothing is found: the command that measures it
    testable: bool = True  # whether such a command is enough, without data or devices that are not here
    notes: tuple[str, ...] = ()  # keys of the page's footnotes


def verdict_at_least(times: Times, paper: float) -> str:
    """Judge "`paper` times as fast": the interval must be above 1, and reach nine tenths of the paper's figure."""
    if times.low <= 1 <= times.high:
        return NOISE
    if times.high < 1:
        return FAILS
    return HOLDS if times.high >= 0.9 * paper else SMALLER


def verdict_if(holds: bool) -> str:
    """Judge what is exactly so or not."""
    return HOLDS if holds else FAILS


def counts(run: Run, kind: str, figures: Iterable[tuple[str, str, float, float, int]]) -> Finding:
    """Hold if all that was counted is the paper's within 2 %, or by its rounding.

    Args:
        run (Run): Whose counts they are.
        kind (str): Of the models, in the plural.
        figures (Iterable[tuple]): Name, unit, our figure, the paper's, and how many digits of ours are shown.
    """
    figures = list(figures)
    off = [
        f'{name} {ours:.{digits}f} {unit}, not {theirs:g}'
        for name, unit, ours, theirs, digits in figures
        if abs(ours - theirs) > 0.02 * theirs and round(ours, digits) != theirs
    ]
    text = f'{len({name for name, *_ in figures})} {kind} counted, {len(off)} figures differ'
    return Finding.counted(run, text + (f': {"; ".join(off)}' if off else ''), verdict_if(not off))


def faster(a: str, b: str, paper: Mapping[str, float], scope: str = 'classifier') -> Find:
    """Return what looks how many times as fast `a` is as `b`, by :func:`verdict_at_least`.

    Args:
        a (str): Published name of a network.
        b (str): Published name of the slower one.
        paper (Mapping[str, float]): The paper's figure by kind of device, 'GPU', 'CPU' and 'ARM'; others do not count.
        scope (str): Of the measurements.
    """

    def find(evidence: Evidence) -> list[Finding]:
        found = []
        for run in evidence.runs(scope, a, b):
            if run.device in paper:
                times = run.times(b, a)
                verdict = verdict_at_least(times, paper[run.device])
                found.append(Finding.of(run, f'{times} times as fast', verdict))
        return found

    return find


def nobody(evidence: Evidence) -> list[Finding]:
    """Find nothing: for claims that no report or study can answer."""
    return []
