"""A report, measured: what `tools/report.py` does between reading its command line and writing its files."""

import copy
import itertools
import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from ...errors import UserError
from ..paper.suites import Row
from ..render.output import SCHEMA
from .breakdown import roofline, split_detector
from .case import Case
from .counting import count_classifier, count_detector, count_parameters
from .environment import load_labels, snapshot, throttle_labels
from .evaluation import evaluate
from .memory import can_count_tensors, held, peak_memory, peak_of_tensors, release
from .modes import DTYPES, GRAPHS, MODES, PLAIN_MODES
from .subject import Subject
from .timing import Limits, MeasurementError, Samples, measure, ratio, summary, verdict

SCOPES = ('backbone', 'classifier', 'detector', 'split', 'roofline', 'training')
# the row of each table that the others take turns with
_REFERENCES = dict(table3='FasterNet-T2', table4='FasterNet-S')


@dataclass
class Options:
    """What to measure, and how long; the command line's options.

    Args:
        device (torch.device): Where.
        shape (tuple[int, int], optional): H, W of random input and noise; 800 x 1280 for detectors and 224 x 224 for
            classifiers without it, the paper's.
        batch_sizes (Sequence[int], optional): 1 for detectors, and 1 and 32 for classifiers without it.
        modes, dtypes (Sequence[str]): Of :data:`MODES` and :data:`DTYPES`.
        channels_last (bool): Memory format of weights and inputs.
        scopes (Sequence[str], optional): Of :data:`SCOPES`; all that a model has, but training, without it.
        evaluate (bool): Whether to run the config's evaluator.
        limits (Limits): How long to warm up and to measure.
    """

    device: torch.device
    shape: tuple[int, int] | None = None
    batch_sizes: Sequence[int] | None = None
    modes: Sequence[str] = ('eager',)
    dtypes: Sequence[str] = ('fp32',)
    channels_last: bool = False
    scopes: Sequence[str] | None = None
    evaluate: bool = True
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for kind, values, known in (('mode', self.modes, MODES), ('dtype', self.dtypes, tuple(DTYPES))):
            for value in values:
                if value not in known:
                    raise UserError(f'{kind} {value!r} does not exist; choose from {", ".join(known)}')

    @property
    def plain_mode(self) -> str:
        """The first mode, or eager where that one cannot be evaluated or taken apart."""
        return self.modes[0] if self.modes[0] in PLAIN_MODES else 'eager'

    def shape_of(self, subject: Subject) -> tuple[int, int]:
        """H, W of random input."""
        return self.shape or subject.shape or ((800, 1280) if subject.kind == 'detector' else (224, 224))

    def batches_of(self, subject: Subject) -> Sequence[int]:
        """Batch sizes, in turn."""
        return self.batch_sizes or ((1,) if subject.kind == 'detector' else (1, 32))

    def wants(self, scope: str) -> bool:
        """Whether a scope is asked for: all but training are without `scopes`."""
        return scope in (SCOPES[:-1] if self.scopes is None else self.scopes)


def new_report(options: Options, command: Sequence[str], suite: str | None = None) -> dict:
    """An empty report; see docs/report_schema.md."""
    settings = {name: value for name, value in vars(options).items() if name not in ('limits', 'device')}
    return dict(
        schema=SCHEMA,
        complete=False,
        created=datetime.now(UTC).isoformat(timespec='seconds'),
        command=list(command),
        options=dict(settings, device=str(options.device), threads=torch.get_num_threads(), **vars(options.limits)),
        suite=suite,
        missing=[],
        environment=dict(before=snapshot(options.device), after=None),
        models=[],
        comparisons=[],
    )


class Reporter:
    """Fills a report, and hands it to `save` after each step, so that nothing measured is lost.

    Args:
        report (dict): From :func:`new_report`, or read again to be continued.
        options (Options): What to measure.
        save (Callable): Writes the report.
        say (Callable): Takes lines on how far it is.
    """

    def __init__(
        self, report: dict, options: Options, save: Callable[[dict], None], say: Callable[[str], None]
    ) -> None:
        self.report = report
        self._options = options
        self._save = save
        self._say = say
        self._load = load_labels(snapshot(options.device))  # a resumed report began at another time

    def run(self, subjects: Sequence[Subject], folder: Path, beside: Sequence[Subject] = ()) -> None:
        """Measure models side by side: in each scope and batch size their calls take turns.

        Args:
            subjects (Sequence[Subject]): The models.
            folder (Path): For the logs of evaluations.
            beside (Sequence[Subject]): Models that take turns, too, for comparison, and are not reported again.
        """
        entries = [self._described(subject) for subject in subjects]
        self.report['models'] += entries
        others = [(subject, self._described(subject)) for subject in beside]
        for subject, entry in zip(subjects, entries):
            self._counted(subject, entry)
            if self._options.evaluate:
                self._evaluated(subject, entry, folder)
        for scope in ('backbone', 'classifier', 'detector', 'training'):
            here = [(s, e) for s, e in (*others, *zip(subjects, entries)) if _has(s, scope)]
            for batch_size in sorted({size for s, _ in here for size in self._options.batches_of(s)}):
                members = [(s, e) for s, e in here if batch_size in self._options.batches_of(s)]
                if members and self._options.wants(scope):
                    self._measured(members, scope, batch_size)
                    self._save(self.report)
        for subject, entry in zip(subjects, entries):
            self._broken_down(subject, entry)
            entry['complete'] = True

    def run_suite(self, rows: Sequence[Row], folder: Path) -> None:
        """Measure rows of a table one after the other, each in turn with one FasterNet; rows already there are kept.

        Raises:
            UserError: If the report to be continued is of another suite, other options or another machine.
        """
        self.report['missing'] = [
            dict(name=row.name, reason=row.reason, published=row.published) for row in rows if row.build is None
        ]
        self.report['complete'] = False
        done = [entry for entry in self.report['models'] if entry['complete']]
        names = {entry['name'] for entry in done}
        self.report['models'] = done
        self.report['comparisons'] = [one for one in self.report['comparisons'] if one['a'].split(' [')[0] in names]
        todo = [row for row in rows if row.build is not None and row.name not in names]
        reference = next(
            (row for row in rows if row.build is not None and row.name == _REFERENCES[self.report['suite']]), None
        )
        beside = self._built(reference) if reference is not None and todo else None
        for number, row in enumerate(todo, 1):
            self._say(f'[{number}/{len(todo)}] {row.name}')
            subject = beside if row is reference else self._built(row)
            if subject is not None:
                self.run([subject], folder, [beside] if beside is not None and row is not reference else [])
            self._save(self.report)

    def _built(self, row: Row) -> Subject | None:
        kind = 'detector' if self.report['suite'] == 'table4' else 'classifier'
        try:
            return Subject(row.name, kind, row.build(), None, None, None, row.published, row.shape, ['random weights'])
        except Exception as error:
            failed = Subject(row.name, kind, torch.nn.Identity(), published=row.published)
            failed = dict(self._described(failed), complete=True, error=f'not built: {_one_line(error)}')
            self.report['models'].append(failed)
            self._say(f'{row.name}: {failed["error"]}')
            return None

    def finish(self) -> None:
        """Mark the report complete."""
        self.report['environment']['after'] = snapshot(self._options.device)
        self.report['complete'] = True
        self._save(self.report)

    def _described(self, subject: Subject) -> dict:
        identity = subject.identity()
        identity['labels'] += self._load
        return dict(
            identity, complete=False, error=None, parameters=count_parameters(subject.model), multiply_adds=None,
            deviations=[], evaluation=None, measurements=[], split=None, rooflines=[],
        )  # fmt: skip

    @contextmanager
    def _surviving(self, entry: dict, what: str):
        """One model that fails does not stop the others."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except Exception as error:
            failed = f'{what}: {_one_line(error)}'
            entry['error'] = f'{entry["error"]}; {failed}' if entry['error'] else failed
            self._say(f'{entry["name"]}: {failed}')

    def _counted(self, subject: Subject, entry: dict) -> None:
        count = count_detector if subject.kind == 'detector' else count_classifier
        try:
            # without data, which is faster, and a CPU's own attention is not counted
            model = copy.deepcopy(subject.model).to('meta')
            entry['multiply_adds'] = counted = count(model, self._options.shape_of(subject))
            published = subject.published or {}
            columns = (
                ('parameters', entry['parameters'] / 1e6, published.get('params_m'), 1),
                ('multiply-adds', (counted['table4'] or counted['total']) / 1e9, _gflops(published), 2),
            )
            # the paper's multiply-adds are for its own sizes
            for what, ours, theirs, decimals in columns if self._options.shape is None else columns[:1]:
                # what the column's rounding explains is no deviation
                if theirs and abs(ours - theirs) > 0.02 * theirs and round(ours, decimals) != theirs:
                    why = f' ({published["note"]})' if what == 'multiply-adds' and 'note' in published else ''
                    entry['deviations'].append(
                        f"{what} {ours:.2f}, {100 * (ours / theirs - 1):+.1f} % off the paper's {theirs:g}{why}"
                    )
        except Exception as error:
            entry['deviations'].append(f'multiply-adds not counted: {_one_line(error)}')

    def _evaluated(self, subject: Subject, entry: dict, folder: Path) -> None:
        if subject.cfg is None:
            return
        self._say(f'{subject.name}: evaluating')
        with self._surviving(entry, 'not evaluated'):
            options = self._options  # accuracy stands in a model's first row, so it is of what that row measures
            entry['evaluation'] = evaluate(
                subject.cfg, subject.checkpoint, folder / 'evaluation' / subject.name,
                options.device, options.plain_mode, options.dtypes[0], options.channels_last,
            )  # fmt: skip
            if options.plain_mode != options.modes[0]:
                entry['evaluation']['labels'].append(f'accuracy of {options.plain_mode}, not of {options.modes[0]}')
        if entry['evaluation'] is None:
            entry['evaluation'] = dict(metrics={}, images=0, dataset=None, labels=[], error=entry['error'])
        self._save(self.report)

    def _measured(self, members: list[tuple[Subject, dict]], scope: str, batch_size: int) -> None:
        options, ready = self._options, []
        # Dynamo gives up on a function after a few compilations, silently
        if any(mode.startswith('compile') for mode in options.modes):
            torch._dynamo.reset()
        for subject, entry in members:
            for dtype, mode in itertools.product(options.dtypes, options.modes):
                shape = options.shape_of(subject)
                case = Case(subject, scope, mode, dtype, batch_size, shape, options.device, options.channels_last)
                row = dict(
                    scope=scope, mode=mode, dtype=dtype, device=str(options.device), batch_size=batch_size,
                    shape=list(shape), channels_last=options.channels_last, threads=torch.get_num_threads(),
                    difference=None, error=None, latency_ms=None, cuda_event_ms=None, throughput=None,
                    peak_memory=None, peak_memory_of=None, labels=[] if dtype == 'fp32' else [f'in {dtype}'],
                )  # fmt: skip
                entry['measurements'].append(row)
                with self._reported(row, subject.name):
                    ready.append((subject, row, self._prepared(case, row)))
        while ready:
            names = ', '.join(f'{subject.name} [{row["mode"]} {row["dtype"]}]' for subject, row, _ in ready)
            self._say(f'{scope}, batch {batch_size}, taking turns: {names}')
            try:
                samples = measure([call for *_, call in ready], options.device, options.limits)
                break
            except MeasurementError as failed:  # the others go on without it
                subject, row, _ = ready.pop(failed.number)
                row['error'] = _one_line(failed.__cause__)
                self._say(f'{subject.name}, {scope}: {row["error"]}')
            except KeyboardInterrupt as interrupt:
                for (_, row, _), one in zip(ready, interrupt.args[0] if interrupt.args else []):
                    _record(row, one)
                raise
        throttled = throttle_labels(options.device)
        for (subject, row, _), one in zip(ready, samples if ready else []):
            _record(row, one)
            row['labels'] += throttled
            mode = f'{row["mode"]} {row["dtype"]} batch {row["batch_size"]}'
            self._say(f'{subject.name}, {scope}, {mode}: {row["latency_ms"]["p50"]:.2f} ms')
        self._compared([(subject.name, row) for subject, row, _ in ready])
        ready.clear()
        release(options.device)

    def _prepared(self, case: Case, row: dict) -> Callable[[int], object]:
        release(case.device)
        others = held(case.device)
        call, row['difference'], labels = case.prepare()
        row['labels'] += labels
        row['shape'] = list(case.shape)
        release(case.device)  # what it was compared with
        if case.mode in GRAPHS:  # its buffers were taken when it was recorded, and no peak shows them
            return call
        if case.scope == 'training':
            call(0)  # the optimizer's state is made in the first step
        if case.scope == 'training' and case.device.type == 'cpu' and can_count_tensors():
            row['peak_memory'], row['peak_memory_of'] = peak_of_tensors(call, call.owners), 'tensors'
        else:
            row['peak_memory'], row['peak_memory_of'] = peak_memory(call, case.device, others)
        return call

    def _compared(self, rows: list[tuple[str, dict]]) -> None:
        """In each dtype models in one mode, and modes of one model, with the first of them; and all with the first."""
        for index, (name, row) in enumerate(rows):
            alike = [(n, r) for n, r in rows[:index] if r['dtype'] == row['dtype']]
            same_mode = next((other for other in alike if other[1]['mode'] == row['mode']), None)
            same_model = next((other for other in alike if other[0] == name), None)
            first = rows[0] if index and rows[0] not in (same_mode, same_model) else None
            dtypes = bool(first) and first[1]['dtype'] != row['dtype']
            for other, words in (
                (same_mode, ()),
                (same_model, ('mode',)),
                (first, ('mode', 'dtype') if dtypes else ('mode',)),
            ):
                if other is not None:
                    times = [r['latency_ms'] for r in (row, other[1])]
                    value, interval = ratio(*(time['samples'] for time in times))
                    self.report['comparisons'].append(
                        dict({key: row[key] for key in ('scope', 'mode', 'dtype', 'batch_size')},
                             a=_named(name, row, words), b=_named(*other, words), ratio=value, interval=list(interval),
                             verdict=verdict(interval, min(time['n'] for time in times)))
                    )  # fmt: skip

    def _broken_down(self, subject: Subject, entry: dict) -> None:
        options = self._options
        shape, dtype = options.shape_of(subject), options.dtypes[0]
        if subject.kind == 'detector' and options.wants('split'):
            self._say(f'{subject.name}: splitting the time of a detection')
            mode = options.plain_mode
            case = Case(subject, 'detector', mode, dtype, 1, shape, options.device, options.channels_last)
            with self._surviving(entry, 'its time could not be split'):
                model, call, labels, shape = case.detector()
                entry['split'] = split_detector(call, model, shape, options.device, options.limits)
                entry['split']['labels'] += [*labels, f'{mode} {dtype}, batch 1']
        if _has(subject, 'backbone') and options.wants('roofline'):
            for dtype, batch_size in itertools.product(options.dtypes, options.batches_of(subject)):
                self._say(f'{subject.name}: timing its layers in {dtype}, batch {batch_size}')
                case = Case(
                    subject, 'backbone', 'eager', dtype, batch_size, shape, options.device, options.channels_last
                )
                with self._surviving(entry, 'its layers could not be timed'):
                    network, images, _ = case.network()
                    where = dict(device=str(options.device), dtype=dtype, batch_size=batch_size)
                    entry['rooflines'].append(dict(roofline(network, images), **where))
        release(options.device)
        self._save(self.report)

    @contextmanager
    def _reported(self, row: dict, name: str):
        """An error stays with its measurement, and the run goes on."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except Exception as error:
            row['error'] = _one_line(error)
            self._say(f'{name}, {row["scope"]}, {row["mode"]} {row["dtype"]} batch {row["batch_size"]}: {row["error"]}')
            release(self._options.device)


def check_continues(report: dict, new: dict) -> None:
    """Raise UserError where the report to be continued was made by other options or on another machine than `new`."""
    for name in ('suite', 'options'):
        if report[name] != json.loads(json.dumps(new[name])):
            raise UserError(
                f'--resume: the report was made with {name} {report[name]}, not {new[name]}; use another --out'
            )
    before, now = report['environment']['before'], new['environment']['before']
    for place in (
        lambda e: e['host']['cpu'],
        lambda e: e['gpu'] and e['gpu']['name'],
        lambda e: e['packages'],
        lambda e: e['git'],
    ):
        if place(before) != place(now):
            raise UserError(f'--resume: the report was made on {place(before)}, not {place(now)}; use another --out')


def _has(subject: Subject, scope: str) -> bool:
    if scope == 'backbone':
        return hasattr(subject.model, 'backbone')
    return subject.kind == ('classifier' if scope == 'training' else scope)


def _named(name: str, row: dict, words: Sequence[str]) -> str:
    return f'{name} [{" ".join(row[word] for word in words)}]' if words else name


def _gflops(published: dict) -> float | None:
    return published.get('gflops') or published.get('gflops_1280x800')


def _record(row: dict, samples: Samples) -> None:
    if samples.wall:
        row['latency_ms'] = summary(samples.wall, samples.warmup)
        row['cuda_event_ms'] = summary(samples.events, samples.warmup)
        row['throughput'] = 1e3 * row['batch_size'] / row['latency_ms']['p50']


def _one_line(error: BaseException) -> str:
    text = ' '.join(str(error).split())
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or 'DefaultCPUAllocator' in text:
        return 'out of memory'
    return text if isinstance(error, UserError) else f'{type(error).__name__}: {text[:300]}'
