"""``tools/report.py`` from the command line: what it writes, and what it says of a wrong input."""

import csv
import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fasternet_mm.engine.cli import command_line
from fasternet_mm.engine.runner import build_runner, load_config
from tests.helpers import REPO, one_line
from tests.helpers.tools import process_state

FAST = ['--shape', '64', '64', '--min-seconds', '0', '--repeats', '2', '--warmup', '0', '--device', 'cpu']


@dataclass
class Done:
    """What a run of the tool left: its exit status or the line of its error, and what it printed."""

    error: str | None
    stdout: str


@pytest.fixture(scope='session')
def tool():
    spec = importlib.util.spec_from_file_location('report_tool', REPO / 'tools' / 'report.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    gc.freeze()  # a report collects garbage around each measurement, which goes through all of mmdet otherwise
    return module


@pytest.fixture
def report_tool(tool, capsys):
    """Run ``tools/report.py ARGS`` in this process; starting one takes longer than most tests."""

    def run(*args) -> Done:
        status = 0
        try:
            with process_state(), command_line():
                tool.main([*map(str, args)])
        except SystemExit as stop:
            status = stop.code
        written = capsys.readouterr()
        return Done(written.err.removesuffix('\n') if status else None, written.out)

    return run


@pytest.fixture
def trained(tiny_config, tmp_path):
    config = tiny_config(epochs=1, extra=f"test_evaluator = dict(val_evaluator, outfile_prefix='{tmp_path}/dump')\n")
    build_runner(load_config(str(config))).train()
    return config, tmp_path / 'work' / 'epoch_1.pth'


def test_cuda_without_a_number_is_the_first_device(monkeypatch, tool):
    chosen = []
    for name, instead in (('is_available', lambda: True), ('device_count', lambda: 2), ('set_device', chosen.append)):
        monkeypatch.setattr(torch.cuda, name, instead)
    for device in ('cuda', 'cuda:1'):
        args = tool.parse_args(['x.py', '--out', 'x', '--device', device])
        assert tool.options_of(args).device == torch.device(device)
    assert chosen == [0, 1]  # torch takes no device without a number here


def test_accuracy_and_latency_of_a_detector(trained, report_tool, tmp_path, sample):
    out = tmp_path / 'out'
    options = ['--mode', 'eager', 'fused', '--cfg-options', 'model.test_cfg.rcnn.score_thr=0.0']
    done = report_tool(*trained, '--out', out, *FAST, *options)
    assert done.error is None
    pictures = {'latency.png', 'split.png', 'roofline.png', 'accuracy_over_latency.png'}
    assert {path.name for path in out.iterdir()} == {'report.json', 'report.md', 'report.csv', 'evaluation', *pictures}
    report = json.loads((out / 'report.json').read_text())
    (model,) = report['models']
    assert report['complete'] and model['error'] is None and len(model['checkpoint_sha256']) == 64
    # AP is what pycocotools says of the dumped results
    truth = COCO(sample / 'annotations' / 'instances_val.json')
    for kind in ('bbox', 'segm'):
        evaluation = COCOeval(truth, truth.loadRes(json.loads((tmp_path / f'dump.{kind}.json').read_text())), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        names = ('mAP', 'mAP_50', 'mAP_75', *(f'mAP_{size}' for size in 'sml'))
        if kind == 'segm':  # mmdet sorts masks into sizes by their own areas, the dumped file by its boxes'
            names = names[:3]
        for name, value in zip(names, evaluation.stats):
            assert model['evaluation']['metrics'][f'coco/{kind}_{name}'] == pytest.approx(value, abs=1e-3)
    # what limits the numbers stands beside them everywhere
    labels = ['accuracy on 4 images only', 'not on COCO val2017', 'on 4 preprocessed images of the test set']
    markdown = (out / 'report.md').read_text()
    for label in labels:
        assert (
            label in markdown and label in ' '.join(done.stdout.split()) and label in (out / 'report.csv').read_text()
        )
    rows = list(csv.DictReader((out / 'report.csv').open()))
    assert {(row['scope'], row['mode']) for row in rows} == {(s, m) for s in ('backbone', 'detector')
                                                             for m in ('eager', 'fused')}  # fmt: skip

    again = report_tool('--compare', out, out / 'report.json')
    assert 'not measured side by side' in again.stdout
    drawn = report_tool('--compare', out, '--out', tmp_path / 'drawn')
    for name in ('compare.md', 'latency.png', 'split.png', 'roofline.png'):
        assert name in drawn.stdout and (tmp_path / 'drawn' / name).is_file()


def test_rows_of_a_suite(report_tool, tmp_path):
    arguments = ['--suite', 'table3', '--only', 'FasterNet-T0', 'ShuffleNetV2 x1.5', 'CycleMLP-B1', '--out', tmp_path]
    fast = [*FAST, '--batch-size', '1']
    assert report_tool(*arguments, *fast).error is None
    report = json.loads((tmp_path / 'report.json').read_text())
    assert [model['name'] for model in report['models']] == ['ShuffleNetV2 x1.5', 'FasterNet-T0']
    assert [model['published']['top1'] for model in report['models']] == [72.6, 71.9]
    assert [row['name'] for row in report['missing']] == ['CycleMLP-B1']
    assert all(row['mode'] == 'fused' for model in report['models'] for row in model['measurements'])  # as in the paper
    before = (tmp_path / 'report.json').read_text()
    done = report_tool(*arguments, *fast, '--resume')
    assert done.error is None
    assert 'FasterNet-T0, classifier' not in done.stdout
    again = json.loads((tmp_path / 'report.json').read_text())
    assert again['models'] == json.loads(before)['models']
    done = report_tool(*arguments, *fast, '--resume', '--mode', 'eager')
    assert 'error: --resume: ' in done.error


def test_operators_beside_each_other(report_tool, tmp_path):
    sizes = [f'{operator} 768x7' for operator in ('DWConv', 'PConv', 'PConv in place')]
    fast = ['--min-seconds', '0', '--repeats', '2', '--warmup', '0', '--device', 'cpu', '--batch-size', '1']
    done = report_tool('--suite', 'table1', '--only', *sizes, '--out', tmp_path, *fast)
    assert done.error is None
    report = json.loads((tmp_path / 'report.json').read_text())
    assert {row['scope'] for model in report['models'] for row in model['measurements']} == {'operator'}
    assert {(one['a'], one['b']) for one in report['comparisons']} == {(sizes[0], sizes[1]), (sizes[2], sizes[1])}
    text = (tmp_path / 'report.md').read_text()
    for said in ('memory access (M)', 'GMAC/s', 'FLOP/byte', 'bound by', 'paper: CPU ms', 'paper: CPU GMAC/s'):
        assert said in text
    assert 'DWConv beats PConv in time at 1 of 1 on its GPU, 1 of 1 on its CPU, 0 of 1 on its ARM' in text
    assert 'eager fp32, batch 1: in time DWConv beats PConv at' in text
    done = report_tool('--suite', 'table1', '--out', tmp_path, *FAST)
    assert 'error: --shape: table1 has its own sizes' in done.error


def test_ctrl_c_keeps_what_there_is(tiny_config, tmp_path):
    out = tmp_path / 'out'
    command = [sys.executable, REPO / 'tools' / 'report.py', tiny_config(), '--no-eval', '--out', out, *FAST]
    command[command.index('--repeats') + 1] = '100000000'
    process = subprocess.Popen(
        [*command, '--scope', 'backbone'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=dict(os.environ, PYTHONPATH=str(REPO)),
        # a shell starts what is in its background with SIGINT ignored, and Python keeps to that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        for line in process.stdout:
            if 'taking turns' in line:
                break
            assert time.monotonic() < deadline
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and 'Traceback' not in stderr
    report = json.loads((out / 'report.json').read_text())
    assert not report['complete'] and 'INCOMPLETE' in stdout
    assert report['models'][0]['measurements'][0]['latency_ms']['n'] > 10


def test_ctrl_c_before_anything_is_measured(tmp_path):
    (tmp_path / 'slow.py').write_text('import time\n\nprint("reading", flush=True)\ntime.sleep(100)\n')
    process = subprocess.Popen(
        [sys.executable, REPO / 'tools' / 'report.py', tmp_path / 'slow.py', '--no-eval', '--out', tmp_path / 'out'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, PYTHONPATH=str(REPO)),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stdout.readline() == 'reading\n'
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and stderr.splitlines()[-1] == 'report.py: interrupted'
    assert 'Traceback' not in stderr


CASES = {
    'no such mode': (
        ['--mode', 'fast'],
        "mode 'fast' does not exist; choose from eager, fused, deploy, graphs, compile",
    ),
    'no such timm model': (['timm://fasternet_x'], "has no model 'fasternet_x'"),
    'no such dtype': (['--dtype', 'int4'], "dtype 'int4' does not exist; choose from fp32, fp16, bf16, int8"),
    'int8 without a file': (['--dtype', 'int8'], '--dtype int8 is for --mode openvino, but the modes are eager'),
    'no such place': (['--out', '/proc/nowhere'], '--out /proc/nowhere is not writable'),
    'no data': ([], 'dataset not found: data/imagenet'),
    'no checkpoint': (['nowhere.pth', '--no-eval'], 'checkpoint not found: nowhere.pth'),
    'not a number': (['--min-seconds', 'nan', '--no-eval'], '--min-seconds must be at least 0, but is nan'),
    'endless': (['--min-seconds', 'inf', '--no-eval'], '--min-seconds must be at least 0, but is inf'),
    'endless warm-up': (['--warmup', 'inf', '--no-eval'], '--warmup must be at least 0, but is inf'),
    'no such scope': (
        ['--scope', 'detector', '--no-eval'],
        'nothing was measured: none of the models has what --scope asks for',
    ),
    'a mode of elsewhere': (
        ['--scope', 'classifier', '--mode', 'graphs', '--batch-size', '1', '--no-eval'],
        'nothing was measured: mode graphs is for --device cuda',
    ),
    'no batch': (['--batch-size', '0', '--no-eval'], '--batch-size must be at least 1, but is 0'),
    'tiny': (['--shape', '8', '8', '--no-eval'], '--shape must be at least 32, but is 8 8'),
    'no threads': (['--threads', '0', '--no-eval'], '--threads must be at least 1, but is 0'),
}


@pytest.mark.parametrize('case', CASES)
def test_one_clear_line(report_tool, tmp_path, monkeypatch, case):
    arguments, message = CASES[case]
    where = [] if '--out' in arguments else ['--out', tmp_path]
    monkeypatch.chdir(tmp_path)
    done = report_tool(REPO / 'configs' / 'fasternet_t0_in1k.py', *arguments, *where)
    assert ': error: ' in done.error and message in done.error and '\n' not in done.error


def test_the_line_is_on_stderr(run_tool, tmp_path):
    arguments, message = CASES['no such mode']
    config = REPO / 'configs' / 'fasternet_t0_in1k.py'
    assert message in one_line(run_tool('report.py', config, *arguments, '--out', tmp_path, check=False))


def test_a_checkpoint_that_does_not_fit(report_tool, tiny_config, tmp_path):
    torch.save(dict(state_dict=dict(x=torch.zeros(1))), tmp_path / 'other.pth')
    done = report_tool(tiny_config(), tmp_path / 'other.pth', '--no-eval', '--out', tmp_path)
    assert 'most likely it is a file of another model' in done.error
