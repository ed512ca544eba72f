"""A report, measured: what fills it, model by model, and hands it on after each step."""

import copy
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from ...errors import UserError
from ..schema import MODES, Comparison, Environment, Evaluation, Measurement, Model, Report, Side
from .breakdown import roofline, time_breakdown
from .case import Case
from .counting import count_classifier, count_detector, memory_access
from .detections import make_detections
from .environment import load_labels, snapshot, throttle_labels
from .evaluation import data_labels, evaluate
from .memory import can_count_tensors, held, peak_memory, peak_of_tensors, release
from .modes import DTYPES, UnsupportedModeError, compiling
from .subject import Subject, detector_batches
from .timing import Limits, Samples, measure, ratio, summary, verdict

SCOPES = ('backbone', 'classifier', 'detector', 'operator', 'split', 'roofline', 'training')


@dataclass
class Options:
    """Say what to measure, and how long: the command line's options.

    Raises:
        UserError: If a mode or dtype does not exist, or a number is too small.
    """

    device: torch.device
    shape: tuple[int, int] | None = None  # H, W of random input and noise; the paper's without it
    batch_sizes: Sequence[int] | None = None  # 1 for detectors, and 1 and 32 for others without it
    modes: Sequence[str] = ('eager',)
    dtypes: Sequence[str] = ('fp32',)
    channels_last: bool = False  # memory format of weights and inputs
    scopes: Sequence[str] | None = None  # all that a model has, but training, without it
    evaluate: bool = True  # by the config's evaluator
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for kind, values, known in (('mode', self.modes, MODES), ('dtype', self.dtypes, DTYPES)):
            for value in values:
                if value not in known:
                    raise UserError(f'{kind} {value!r} does not exist; choose from {", ".join(known)}')
        sizes = [('batch-size', self.batch_sizes, 1), ('shape', self.shape, 32), ('repeats', [self.limits.repeats], 1)]
        sizes += [('min-seconds', [self.limits.min_seconds], 0), ('warmup', [self.limits.warmup], 0)]
        for option, values, least in sizes:
            if any(not least <= value < math.inf for value in values or ()):
                raise UserError(f'--{option} must be at least {least}, but is {" ".join(map(str, values))}')
        if not self.ways:
            able = ' or '.join(mode for mode in MODES if 'int8' in MODES[mode].runtime_dtypes)
            raise UserError(f'--dtype int8 is for --mode {able}, but the modes are {", ".join(self.modes)}')

    @property
    def ways(self) -> list[tuple[str, str]]:
        """Return modes with dtypes, in turn: int8 is for the modes alone that read files of it."""
        every = itertools.product(self.dtypes, self.modes)
        return [(mode, dtype) for dtype, mode in every if dtype != 'int8' or dtype in MODES[mode].runtime_dtypes]

    @property
    def plain(self) -> tuple[str, str]:
        """Return the first mode and dtype, or eager or fp32 where torch cannot evaluate it or take it apart."""
        mode, dtype = self.modes[0], self.dtypes[0]
        return mode if MODES[mode].plain else 'eager', 'fp32' if dtype == 'int8' else dtype

    def shape_of(self, subject: Subject) -> tuple[int, int]:
        """Return H, W of random input."""
        return self.shape or subject.shape or ((800, 1280) if subject.kind == 'detector' else (224, 224))

    def batches_of(self, subject: Subject) -> Sequence[int]:
        """Return the batch sizes, in turn."""
        return self.batch_sizes or ((1,) if subject.kind == 'detector' else (1, 32))

    def wants(self, scope: str) -> bool:
        """Return whether a scope is asked for: all but training are without `scopes`."""
        return scope in (SCOPES[:-1] if self.scopes is None else self.scopes)

    def case(self, subject: Subject, scope: str, mode: str, dtype: str, batch_size: int) -> Case:
        """Return one way to run a model, with an empty measurement for it."""
        where = dict(device=str(self.device), channels_last=self.channels_last, threads=torch.get_num_threads())
        row = Measurement(scope, mode, dtype, batch_size=batch_size, shape=list(self.shape_of(subject)), **where)
        return Case(subject, row)


def new_report(options: Options, command: Sequence[str], suite: str | None = None) -> Report:
    """Return an empty report; see docs/report_schema.md."""
    settings = {name: value for name, value in vars(options).items() if name not in ('limits', 'device')}
    settings |= dict(device=str(options.device), threads=torch.get_num_threads(), **asdict(options.limits))
    created = datetime.now(UTC).isoformat(timespec='seconds')
    return Report(created, list(command), settings, Environment(snapshot(options.device)), suite)


class Reporter:
    """Fill a report, and hand it to `save` after each step, so that nothing measured is lost.

    Args:
        report (Report): From :func:`new_report`, or read again to be continued.
        options (Options): What to measure.
        save (Callable): Writes the report.
        say (Callable): Takes lines on how far it is.
    """

    def __init__(
        self, report: Report, options: Options, save: Callable[[Report], None], say: Callable[[str], None]
    ) -> None:
        self.report = report
        self.say = say
        self._options = options
        self._save = save
        self._load = load_labels(snapshot(options.device))  # a resumed report began at another time

    def run(self, subjects: Sequence[Subject], folder: Path, beside: Sequence[Subject] = ()) -> None:
        """Measure models side by side: in each scope and batch size their calls take turns.

        Args:
            subjects (Sequence[Subject]): The models.
            folder (Path): For the logs of evaluations.
            beside (Sequence[Subject]): Models that take turns, too, for comparison, and are not reported again.

        Raises:
            KeyboardInterrupt: After Ctrl-C; the report has what was sampled.
        """
        options = self._options
        members = [(subject, self.described(subject)) for subject in subjects]
        for subject in (*subjects, *beside):
            subject.folder = folder and folder / 'files'
        self.report.models += [model for _, model in members]
        for subject, model in members:
            self._count(subject, model)
            if options.evaluate and subject.cfg is not None:
                self._evaluate(subject, model, folder)
        beside = [(subject, self.described(subject)) for subject in beside]
        if options.wants('detector') or options.wants('split'):
            for subject, model in (*beside, *members):
                self._make_detections(subject, model)
        for scope in ('backbone', 'classifier', 'detector', 'operator', 'training'):
            here = [(s, m) for s, m in (*beside, *members) if s.has(scope) and options.wants(scope)]
            for batch_size in sorted({size for s, _ in here for size in options.batches_of(s)}):
                self._measure([(s, m) for s, m in here if batch_size in options.batches_of(s)], scope, batch_size)
                self._save(self.report)
        for subject, model in members:
            self._break_down(subject, model)
            model.complete = True
            self._save(self.report)

    def finish(self) -> None:
        """Mark the report complete, unless nothing could be measured."""
        self.report.environment.after = snapshot(self._options.device)
        self.report.complete = any(map(_has_numbers, self.report.models))
        self._save(self.report)

    def described(self, subject: Subject) -> Model:
        """Return a model's place in a report, with nothing measured yet."""
        model = subject.described()
        model.labels += self._load
        return model

    def fail(self, model: Model, what: str, error: Exception) -> None:
        """Note an error with its model; it does not stop the others."""
        failed = f'{what}: {_one_line(error)}'
        model.error = f'{model.error}; {failed}' if model.error else failed
        self.say(f'{model.name}: {failed}')

    def _fail(self, case: Case, error: Exception) -> None:
        row = case.row
        row.error, row.unsupported = _one_line(error), isinstance(error, UnsupportedModeError)
        self.say(f'{case.subject.name}, {row.scope}, {row.mode} {row.dtype} batch {row.batch_size}: {row.error}')
        release(self._options.device)

    def _count(self, subject: Subject, model: Model) -> None:
        shape = self._options.shape_of(subject)
        try:
            # without data, which is faster, and a CPU's own attention is not counted
            empty = copy.deepcopy(subject.model).to('meta')
            if subject.kind == 'detector':
                counted = count_detector(empty, shape)
            else:
                counted = count_classifier(empty, shape, subject.channels)
        except Exception as error:
            model.deviations.append(f'multiply-adds not counted: {_one_line(error)}')
            return
        model.multiply_adds, published = counted, subject.published
        if subject.kind == 'operator':
            model.memory_access = memory_access(empty, shape)
        if published is None:
            return
        columns = [('parameters', model.parameters / 1e6, published.params_m, 1, None)]
        if self._options.shape is None:  # the paper's multiply-adds are for its own sizes
            theirs = published.gflops or published.gflops_1280x800
            columns.append(('multiply-adds', (counted.table4 or counted.total) / 1e9, theirs, 2, published.note))
        for what, ours, theirs, decimals, note in columns:
            # what the column's rounding explains is no deviation
            if theirs and abs(ours - theirs) > 0.02 * theirs and round(ours, decimals) != theirs:
                off = f"{100 * (ours / theirs - 1):+.1f} % off the paper's {theirs:g}"
                model.deviations.append(f'{what} {ours:.2f}, {off}{f" ({note})" if note else ""}')

    def _evaluate(self, subject: Subject, model: Model, folder: Path) -> None:
        self.say(f'{subject.name}: evaluating')
        options = self._options  # accuracy stands in a model's first row, so it is of what that row measures
        mode, dtype = options.plain
        how = options.device, mode, dtype, options.channels_last
        try:
            model.evaluation = evaluate(subject.cfg, subject.checkpoint, folder / 'evaluation' / subject.name, *how)
            if mode != options.modes[0]:
                model.evaluation.labels.append(f'accuracy of {mode}, not of {options.modes[0]}')
        except Exception as error:
            self.fail(model, 'not evaluated', error)
            model.evaluation = Evaluation({}, 0, None, [], model.error)
        self._save(self.report)

    def _evaluate_form(self, case: Case, model: Model) -> None:
        """Evaluate what was timed, if it is a whole model that was not made to find something."""
        subject, row, options = case.subject, case.row, self._options
        known, least = model.evaluation, min(options.batches_of(subject))
        done = (row.mode, row.dtype) == options.plain or row.batch_size != least or row.scope != subject.kind
        if done or known is None or known.error or subject.random:
            return
        self.say(f'{subject.name}: evaluating {row.mode} {row.dtype}')
        row.evaluation = replace(known, metrics={}, labels=data_labels(subject.cfg, known.dataset, known.images))
        try:
            row.evaluation.metrics = case.accuracy(subject.cfg)
        except Exception as error:
            row.evaluation.error = _one_line(error)
            self.say(f'{subject.name}, {row.mode} {row.dtype}: not evaluated: {row.evaluation.error}')
        self._save(self.report)

    def _make_detections(self, subject: Subject, model: Model) -> None:
        if subject.kind != 'detector' or not subject.random or subject.made_to_find:
            return
        self.say(f'{subject.name}: making its random weights find something')
        try:
            batches, *_ = detector_batches(subject, 1, self._options.shape_of(subject))
            subject.made_to_find = make_detections(subject.model, batches)
        except Exception as error:
            self.fail(model, 'no detections could be made', error)

    def _measure(self, members: list[tuple[Subject, Model]], scope: str, batch_size: int) -> None:
        options, ready = self._options, []
        with compiling(options.modes):
            for subject, model in members:
                for mode, dtype in options.ways:
                    case = options.case(subject, scope, mode, dtype, batch_size)
                    case.row.labels += [] if dtype == 'fp32' else [f'in {dtype}']
                    model.measurements.append(case.row)
                    try:
                        ready.append((case, _prepared(case)))
                    except Exception as error:
                        self._fail(case, error)
            samples = self._take_turns(ready, scope, batch_size) if ready else []
        throttled = throttle_labels(options.device)
        for (case, _), one in zip(ready, samples):
            row = case.row
            _record(case, one)
            row.labels += throttled
            mode = f'{row.mode} {row.dtype} batch {row.batch_size}'
            self.say(f'{case.subject.name}, {scope}, {mode}: {row.latency_ms.p50:.2f} ms')
        self._compare([(case.subject.name, case.row) for case, _ in ready])
        models = dict(members)
        for case, _ in ready:
            self._evaluate_form(case, models[case.subject])
        ready.clear()
        release(options.device)

    def _take_turns(self, ready: list[tuple[Case, Callable]], scope: str, batch_size: int) -> list[Samples]:
        """Return the samples of what is ready; what fails on the way is taken out of it."""
        while ready:
            names = ', '.join(f'{case.subject.name} [{case.row.mode} {case.row.dtype}]' for case, _ in ready)
            self.say(f'{scope}, batch {batch_size}, taking turns: {names}')
            turns = measure([call for _, call in ready], self._options.device, self._options.limits)
            if turns.interrupted:
                for (case, _), one in zip(ready, turns.samples):
                    _record(case, one)
                raise KeyboardInterrupt
            if turns.error is None:
                return turns.samples
            self._fail(ready.pop(turns.failed)[0], turns.error)
        return []

    def _compare(self, rows: list[tuple[str, Measurement]]) -> None:
        """Compare in each dtype models in one mode, and modes of one model, with the first of them; all with the first.

        The rows' samples were taken in turn.
        """
        for index, (name, row) in enumerate(rows):
            alike = [(n, r) for n, r in rows[:index] if r.dtype == row.dtype]
            same_mode = next((other for other in alike if other[1].mode == row.mode), None)
            same_model = next((other for other in alike if other[0] == name), None)
            first = rows[0] if index and rows[0] not in (same_mode, same_model) else None
            for other, reference in filter(None, (same_mode, same_model, first)):
                value, interval = ratio(row.latency_ms.samples, reference.latency_ms.samples)
                a, b = Side(name, row.mode, row.dtype), Side(other, reference.mode, reference.dtype)
                said = verdict(interval, min(row.latency_ms.n, reference.latency_ms.n))
                how = row.scope, row.mode, row.dtype, row.batch_size
                one = Comparison(*how, a.named(b), b.named(a), a, b, value, list(interval), said)
                self.report.comparisons.append(one)

    def _break_down(self, subject: Subject, model: Model) -> None:
        options = self._options
        if subject.kind == 'detector' and options.wants('split'):
            self.say(f'{subject.name}: splitting the time of a detection')
            mode, dtype = options.plain
            case = options.case(subject, 'detector', mode, dtype, 1)
            try:
                detector, call, _ = case.detector()
                case.see(call)
                model.split = time_breakdown(call, detector, case.row.shape, options.device, options.limits)
                model.split.labels += [*case.row.labels, *case.found(), f'{mode} {dtype}, batch 1']
            except Exception as error:
                self.fail(model, 'its time could not be split', error)
        scope = 'operator' if subject.kind == 'operator' else 'backbone'
        if subject.has(scope) and options.wants('roofline'):
            dtypes = [dtype for dtype in options.dtypes if dtype != 'int8']
            for dtype, batch_size in itertools.product(dtypes, options.batches_of(subject)):
                self.say(f'{subject.name}: timing its layers in {dtype}, batch {batch_size}')
                mode = 'fused' if options.modes[0] == 'fused' else 'eager'  # other forms have no layers of their own
                case = options.case(subject, scope, mode, dtype, batch_size)
                try:
                    model.rooflines.append(roofline(*case.network(), case.row))
                except Exception as error:
                    self.fail(model, 'its layers could not be timed', error)
        release(options.device)


def _has_numbers(model: Model) -> bool:
    timed = any(m.latency_ms for m in model.measurements) or model.split or model.rooflines
    return bool(timed or (model.evaluation and model.evaluation.metrics))


def _prepared(case: Case) -> Callable[[int], object]:
    """Return what to time, compared and with its memory measured."""
    row, device = case.row, case.device
    release(device)
    others = held(device)
    call = case.prepare()
    release(device)  # what it was compared with
    if MODES[row.mode].cuda_graphs:  # its buffers were taken when it was recorded, and no peak shows them
        return call
    if row.scope == 'training':
        call(0)  # the optimizer's state is made in the first step
    if row.scope == 'training' and device.type == 'cpu' and can_count_tensors():
        row.peak_memory, row.peak_memory_of = peak_of_tensors(call, call.owners), 'tensors'
    else:
        row.peak_memory, row.peak_memory_of = peak_memory(call, device, others)
    return call


def _record(case: Case, samples: Samples) -> None:
    row = case.row
    if samples.wall:
        row.labels += case.found()
        row.latency_ms = summary(samples.wall, samples.warmup)
        row.cuda_event_ms = summary(samples.events, samples.warmup)
        row.throughput = 1e3 * row.batch_size / row.latency_ms.p50


def _one_line(error: BaseException) -> str:
    text = ' '.join(str(error).split())
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or 'DefaultCPUAllocator' in text:
        return 'out of memory'
    return text if isinstance(error, UserError) else f'{type(error).__name__}: {text[:300]}'


def check_continues(report: Report, new: Report) -> None:
    """Raise UserError where the report to be continued was made by other options or on another machine than `new`."""
    machines = [(one.host.cpu, one.gpu and one.gpu.name, one.packages, one.git)
                for one in (report.environment.before, new.environment.before)]  # fmt: skip
    asked = [('suite', report.suite, new.suite), ('options', report.options, json.loads(json.dumps(new.options)))]
    for what, before, now in asked:
        if before != now:
            raise UserError(f'--resume: the report was made with {what} {before}, not {now}; use another --out')
    for before, now in zip(*machines):
        if before != now:
            raise UserError(f'--resume: the report was made on {before}, not {now}; use another --out')
