"""What tools/report.py does between its arguments and its files: here the three wings meet."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config

from ..checkpoint import require_source
from ..engine.preflight import check_training_data
from ..engine.runner import build_model, load_config
from ..errors import UserError
from ..files import require_writable
from .measure.evaluation import check_evaluation
from .measure.exported import require_runtime
from .measure.modes import UnsupportedModeError
from .measure.runner import Options, Reporter, check_continues, new_report
from .measure.subject import Subject, from_timm, require_timm, with_backbone
from .paper.suites import TABLES, Row, published_for, suite
from .render.files import load, save, write
from .schema import Missing, Report


def select_device(name: str, threads: int | None = None) -> torch.device:
    """Make a device the current one, with fp32 that is fp32, and set the number of the CPU's threads.

    Raises:
        UserError: If it is not here, or there would be no thread.
    """
    if not re.fullmatch(r'cpu|cuda(:\d+)?', name):
        raise UserError(f'--device {name}: expected cpu, cuda or cuda:N')
    device = torch.device(name)
    if device.type == 'cuda':
        if not torch.cuda.is_available():
            raise UserError(f'--device {name}: no CUDA device is available here; use --device cpu')
        if (device.index or 0) >= torch.cuda.device_count():
            raise UserError(f'--device {name}: only {torch.cuda.device_count()} CUDA devices are here')
        torch.cuda.set_device(device.index or 0)
        # by default cuDNN rounds the factors of a convolution to TF32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if threads is not None:
        if threads < 1:
            raise UserError(f'--threads must be at least 1, but is {threads}')
        torch.set_num_threads(threads)
    return device


def from_config(cfg: Config, config: str, checkpoint: str | None) -> Subject:
    """Build the model of an mmdet or mmpretrain config, which its path `config` names.

    Without a checkpoint (file, URL or name) its weights are random, and labelled so.

    Raises:
        UserError: If the config is of neither library, or the checkpoint does not fit.
    """
    try:
        model = build_model(cfg, checkpoint)
    except UserError as error:
        raise type(error)(f'{config}: {error}') from error
    kind, published = 'detector' if cfg.default_scope == 'mmdet' else 'classifier', published_for(model)
    source = dict(cfg=cfg, config=config, checkpoint=checkpoint, random=not checkpoint)
    return Subject(Path(config).stem, kind, model, published=published, **source)


def subjects_of(models: Sequence[str], cfg_options: dict | None, options: Options) -> list[Subject]:
    """Build the models of CONFIG [CKPT] [CONFIG CKPT ...] or timm://NAME; all inputs are checked before.

    Raises:
        UserError: Names the input that is wrong.
    """
    pairs = []
    for item in models:  # what ends in .py is a config, what follows one is its checkpoint
        if item.endswith('.py') or item.startswith('timm://'):
            pairs.append((item, None))
        elif pairs and pairs[-1][1] is None:
            pairs[-1] = (pairs[-1][0], item)
        else:
            raise UserError(
                f'{item}: expected CONFIG [CKPT] [CONFIG CKPT ...], where a config ends in .py, or timm://NAME'
            )
    cfgs = []
    for path, checkpoint in pairs:
        if not path.startswith('timm://'):
            cfgs.append(load_config(path, cfg_options))
            continue
        require_timm(path)
        if checkpoint:
            raise UserError(f'{path}: weights of timm are not read; its name stands without a checkpoint')
        cfgs.append(None)
    for (path, checkpoint), cfg in zip(pairs, cfgs):
        if cfg and checkpoint:
            require_source(checkpoint)
        try:
            if cfg and options.evaluate:
                check_evaluation(cfg)
        except UserError as error:
            raise UserError(f'{path}: {str(error).rstrip(".")}. Without evaluation: --no-eval') from error
        if cfg and 'int8' in options.dtypes:
            check_training_data(cfg)
    subjects = [from_config(cfg, *pair) if cfg else from_timm(pair[0]) for pair, cfg in zip(pairs, cfgs)]
    for number, subject in enumerate(subjects):
        if subject.name in [other.name for other in subjects[:number]]:
            subject.name = f'{subject.name} ({number + 1})'
    return subjects


def run_suite(reporter: Reporter, rows: Sequence[Row], folder: Path) -> None:
    """Measure rows of a table one after the other, each in turn with its reference; rows already there are kept."""
    report, table = reporter.report, TABLES[reporter.report.suite]
    by_name = {row.name: row for row in rows if row.build is not None}
    report.missing = [Missing(row.name, row.reason, row.published) for row in rows if row.build is None]
    report.complete = False
    report.models = [model for model in report.models if model.complete]
    done = {model.name for model in report.models}
    report.comparisons = [one for one in report.comparisons if one.side_a.model in done]

    pipeline = table.pipeline and table.pipeline()

    def known(row: Row) -> dict:
        names = ('published', 'shape', 'labels', 'operator', 'channels')
        return {name: getattr(row, name) for name in names} | dict(random=True, pipeline=pipeline)

    def built(row: Row) -> Subject | None:
        try:
            return Subject(row.name, table.kind, with_backbone(row.build()), **known(row))
        except Exception as error:
            model = reporter.described(Subject(row.name, table.kind, torch.nn.Identity(), **known(row)))
            report.models.append(model)
            reporter.fail(model, 'not built', error)
            model.complete = True
            return None

    todo, references = [row for row in by_name.values() if row.name not in done], {}
    for number, row in enumerate(todo, 1):
        reporter.say(f'[{number}/{len(todo)}] {row.name}')
        name = row.reference or table.reference
        if name in by_name and name not in references:
            references[name] = built(by_name[name])
        beside = references.get(name)
        subject = beside if row.name == name else built(row)
        if subject is not None:
            reporter.run([subject], folder, [beside] if beside is not None and row.name != name else [])


def run(
    options: Options, out: Path, command: Sequence[str], say: Callable[[str], None], models: Sequence[str] = (),
    cfg_options: dict | None = None, suite_name: str | None = None, only: Sequence[str] = (), resume: bool = False,
) -> Report:  # fmt: skip
    """Measure models (see :func:`subjects_of`) or rows of a suite, and write the report into a folder.

    Args:
        options (Options): What to measure.
        out (Path): The folder; with `resume`, the suite whose report is in it goes on.
        command (Sequence[str]): Kept in the report.
        say (Callable): Takes lines on how far it is.

    Returns:
        Report: Not complete after Ctrl-C, with what was measured until then.

    Raises:
        UserError: If an input is wrong, before anything is measured; or if nothing could be measured, after the report,
            which says why and is not complete, is written.
    """
    require_writable(out, f'--out {out}')
    for mode, dtype in options.ways:
        try:
            require_runtime(mode, dtype, options.device, 'detector')
        except UnsupportedModeError as error:
            say(f'not measured: {error}')
    rows = suite(suite_name, only) if suite_name else []
    if options.shape and suite_name and TABLES[suite_name].kind == 'operator':
        raise UserError(f'--shape: {suite_name} has its own sizes; choose among them by --only')
    report = new_report(options, command, suite_name)
    if resume and (out / 'report.json').exists():
        report, new = load(out), report
        check_continues(report, new)
    subjects = subjects_of(models, cfg_options, options)
    reporter = Reporter(report, options, lambda report: save(report, out), say)
    try:
        if suite_name:
            run_suite(reporter, rows, out)
        else:
            reporter.run(subjects, out)
        reporter.finish()
    except KeyboardInterrupt:
        say('interrupted: what was measured is kept, marked incomplete')
        write(report, out)
        return report
    write(report, out)
    if not report.complete:
        errors = [error for model in report.models for error in (model.error, *(m.error for m in model.measurements))]
        why = '; '.join(dict.fromkeys(filter(None, errors))) or 'none of the models has what --scope asks for'
        raise UserError(f'nothing was measured: {why}')
    return report
