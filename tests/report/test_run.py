"""What stays when something fails, and how a suite goes on."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from mmengine.config import Config

from fasternet_mm.errors import UserError
from fasternet_mm.report import Limits, Options, Reporter, Subject, check_continues, from_config, new_report, run_suite
from fasternet_mm.report.paper.suites import Row
from fasternet_mm.report.schema import Missing, Published, from_json, to_json

from .measuring import CPU, FAST, run


def test_models_of_one_run_are_compared_in_turn(classifier):
    other = copy.deepcopy(classifier)
    other.name = 'other'
    report = run([classifier, other], modes=['eager', 'fused'], batch_sizes=[1], scopes=['classifier'])
    pairs = {(one.a, one.b, one.mode) for one in report.comparisons}
    assert pairs == {
        ('other', 'classifier', 'eager'),
        ('other', 'classifier', 'fused'),
        ('classifier [fused]', 'classifier [eager]', 'fused'),
        ('other [fused]', 'other [eager]', 'fused'),
        ('other [fused]', 'classifier [eager]', 'fused'),
    }
    assert all(one.interval[0] <= one.ratio <= one.interval[1] for one in report.comparisons)


def test_running_out_of_memory_ends_one_batch_size_alone(classifier, monkeypatch):
    forward = type(classifier.model).forward

    def limited(self, inputs, *args, **kwargs):
        if len(inputs) > 2:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
        return forward(self, inputs, *args, **kwargs)

    monkeypatch.setattr(type(classifier.model), 'forward', limited)
    rows = run([classifier], batch_sizes=[1, 2, 4], scopes=['classifier']).models[0].measurements
    assert [(row.batch_size, row.error) for row in rows] == [(1, None), (2, None), (4, 'out of memory')]


def test_the_others_go_on_without_a_model_that_fails_on_the_way(classifier, monkeypatch):
    other = copy.deepcopy(classifier)
    other.name = 'other'
    calls = []

    def fails_in_the_end(self, feats):
        calls.append(feats)
        if len(calls) > 30:
            raise RuntimeError('[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory')
        return torch.zeros(1, 1000)

    other.model.head.forward = fails_in_the_end.__get__(other.model.head)
    limits = Limits(0.0, 0.0, 100)
    report = run([classifier, other], batch_sizes=[1], scopes=['classifier'], limits=limits)
    (a,), (b,) = (model.measurements for model in report.models)
    assert a.error is None and a.latency_ms.n == 100
    assert b.error == 'out of memory' and b.latency_ms is None


def test_ctrl_c_keeps_what_was_sampled(classifier):
    calls = []

    def interrupted(feats):
        calls.append(feats)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return torch.zeros(1, 1000)

    classifier.model.head.forward = interrupted
    options = Options(CPU, (64, 64), [1], scopes=['classifier'], evaluate=False, limits=Limits(0.0, 0.0, 100))
    reporter = Reporter(new_report(options, []), options, lambda report: None, str)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        reporter.run([classifier], None)
    assert interrupt.value.args == ()
    (model,) = reporter.report.models
    assert 5 < model.measurements[0].latency_ms.n < 20 and model.measurements[0].error is None
    assert not model.complete and not reporter.report.complete


@pytest.mark.parametrize(('option', 'value'), [('modes', 'fast'), ('dtypes', 'int4')])
def test_what_does_not_exist_is_refused_by_name(option, value):
    with pytest.raises(UserError, match=f"{option[:-1]} '{value}' does not exist; choose from"):
        Options(CPU, **{option: [value]})


ROWS = [
    Row('FasterNet-T2', Published(params_m=1.0, gflops=0.1), (64, 64), lambda: torch.nn.Conv2d(3, 8, 3), None),
    Row('Broken', Published(), (64, 64), lambda: 1 / 0, None),
    Row('Other', Published(), (64, 64), lambda: torch.nn.Conv2d(3, 8, 3), None),
    Row('Lost', Published(params_m=2.0), (64, 64), None, 'no installed package builds it'),
]


def suite_options(**more) -> Options:
    return Options(CPU, batch_sizes=[1], scopes=['classifier'], evaluate=False, limits=FAST, **more)


def run_rows(rows, report=None, options=None):
    options = options or suite_options()
    report = report or new_report(options, ['report.py'], 'table3')
    said = []
    reporter = Reporter(report, options, lambda r: None, said.append)
    run_suite(reporter, rows, None)
    reporter.finish()
    return report, said


def test_a_suite_survives_a_model_and_says_what_is_missing():
    report, _ = run_rows(ROWS)
    models = {model.name: model for model in report.models}
    assert list(models) == ['FasterNet-T2', 'Broken', 'Other']
    assert models['Broken'].error == 'not built: ZeroDivisionError: division by zero'
    assert report.missing == [Missing('Lost', 'no installed package builds it', Published(params_m=2.0))]
    ((a, b),) = {(one.a, one.b) for one in report.comparisons}
    assert (a, b) == ('Other', 'FasterNet-T2')
    assert any('parameters 0.00, -100.0 % off' in line for line in models['FasterNet-T2'].deviations)


def test_a_suite_goes_on_where_it_stopped():
    report, _ = run_rows(ROWS[:1])
    kept = copy.deepcopy(report.models[0])
    report.models.append(replace(copy.deepcopy(kept), name='Other'))
    report.models[1].complete = False  # interrupted there
    report, said = run_rows(ROWS, report)
    assert report.models[0].measurements == kept.measurements
    assert [model.name for model in report.models] == ['FasterNet-T2', 'Broken', 'Other'] and report.complete
    assert report.models[2].measurements[0].latency_ms is not None
    assert [line for line in said if line.startswith('[')] == ['[1/2] Broken', '[2/2] Other']


def test_other_options_do_not_go_on():
    report = from_json(json.loads(json.dumps(to_json(new_report(suite_options(), [], 'table3')))), 'x')
    check_continues(report, new_report(suite_options(), [], 'table3'))
    with pytest.raises(UserError, match='--resume: the report (has|was made with) options .*use another --out'):
        check_continues(report, new_report(suite_options(modes=['fused']), [], 'table3'))


def test_a_config_of_neither_library(tmp_path):
    with pytest.raises(UserError, match="x.py: default_scope is 'mmseg', expected a config of mmdet or mmpretrain"):
        from_config(Config(dict(default_scope='mmseg', model=dict())), 'x.py', None)


def test_subjects_say_what_they_are(classifier):
    identity = classifier.described()
    assert identity.name == 'classifier' and len(identity.config_sha256) == 64
    assert identity.checkpoint is None and isinstance(classifier, Subject)
