"""A report says the same in the terminal, in markdown, in csv and in pictures, and its labels with every number."""

import copy
import csv
import io
import json
import re

import cv2
import numpy as np
import pytest
from rich.console import Console

from fasternet_mm.errors import UserError
from fasternet_mm.report.render.compare import compare
from fasternet_mm.report.render.output import csv_text, load, markdown, terminal_tables, write
from fasternet_mm.report.render.plots import pictures

LABELS = (
    'random weights',
    'the machine was busy',
    'measured in fp16',
    'accuracy on 16 images only',
    'not on COCO val2017',
    'parts were timed one by one',
)
ERROR = 'CUDA out of memory while the made-up model ran'


def measurement(scope: str, mode: str, p50: float, **other) -> dict:
    samples = [p50 * (0.9 + 0.2 * index / 20) for index in range(21)]
    latency = dict(mean=p50, p10=0.92 * p50, p50=p50, p90=1.08 * p50, p99=1.1 * p50, n=21, samples=samples, warmup=3)
    usual = dict(
        scope=scope, mode=mode, dtype='fp32', device='cuda:0', batch_size=1, shape=[64, 96], channels_last=False,
        threads=1, difference=None, error=None, latency_ms=latency, cuda_event_ms=None, throughput=1000 / p50,
        peak_memory=2**27, peak_memory_of='CUDA allocator', labels=[],
    )  # fmt: skip
    return usual | other


def failed(scope: str, mode: str) -> dict:
    nothing = dict(latency_ms=None, throughput=None, peak_memory=None, peak_memory_of=None)
    return measurement(scope, mode, 777, error=ERROR, **nothing)


def model(name: str, kind: str, **other) -> dict:
    usual = dict(
        name=name, kind=kind, config=None, config_sha256='0' * 64, checkpoint=None, checkpoint_sha256=None, labels=[],
        error=None, parameters=1_230_000, deviations=[], evaluation=None, measurements=[], split=None, rooflines=[],
        multiply_adds=dict(total=4.5e9, parts={'backbone': 2e9}, shape=[64, 96], convention='made up', table4=None),
        published=None,
    )  # fmt: skip
    return usual | other


@pytest.fixture
def report() -> dict:
    snapshot = dict(
        host=dict(platform='Linux', cpu='Made-up CPU', cores=2, load_average=0.5),
        gpu=dict(name='Made-up GPU', driver='1', sm_clock_mhz=1000, temperature_c=40, throttle_reasons='0x0'),
        threads=1, python='3.11', packages=dict(torch='2.0.made.up'), git=None,
    )  # fmt: skip
    layers = [dict(name='a', kind='PConv', ms=1.0, gflops=50.0, flops_per_byte=3.0, share=0.5)]
    layers += [dict(name='rest', kind='other', ms=1.0, gflops=0.0, flops_per_byte=None, share=0.5)]
    detector = model(
        'FasterNet-X',
        'detector',
        labels=['random weights'],
        deviations=['parameters 3.1 % off'],
        published=dict(box_ap=39.9, gpu_ms=54.3, source='a made-up paper', hardware='Some GPU'),
        measurements=[
            measurement('detector', 'eager', 20, labels=['the machine was busy']),
            measurement('detector', 'fused', 16, dtype='fp16', labels=['measured in fp16'], difference=1e-3),
            failed('detector', 'compile'),
            measurement('backbone', 'eager', 8),
        ],
        split=dict(
            shape=[64, 96], parts={'backbone': 8.0, 'neck': 4.0, 'head': 7.0}, total_ms=19.0, whole_ms=20.0,
            disagreement=-0.05, labels=['parts were timed one by one'],
        ),
        rooflines=[dict(
            matmul_gflops=1000.0, copy_gb_per_s=50.0, arithmetic_floor_ms=4.0, memory_floor_ms=3.0, device='cuda:0',
            dtype='fp32', batch_size=1, layers=layers,
        )],
    )  # fmt: skip
    other = model(
        'ResNet-Y',
        'detector',
        evaluation=dict(
            metrics={'coco/bbox_mAP': 0.251}, images=16, dataset='made/up.json', error=None,
            labels=['accuracy on 16 images only', 'not on COCO val2017'],
        ),
        measurements=[measurement('detector', 'eager', 25)],
    )  # fmt: skip
    alike = dict(scope='detector', mode='eager', dtype='fp32', batch_size=1)
    return dict(
        schema='fasternet_mm.report/1', complete=True, created='2024-05-06T07:08:09Z', command=['tools/report.py'],
        options=dict(repeats=20), suite=None, environment=dict(before=snapshot, after=copy.deepcopy(snapshot)),
        missing=[dict(name='NoNet', reason='nobody builds it', published=None)],
        models=[detector, other, model('Classifier-Z', 'classifier', error='it could not be built')],
        comparisons=[
            dict(alike, a='FasterNet-X', b='ResNet-Y', ratio=0.8, interval=[0.75, 0.85], verdict='a is faster'),
            dict(alike, a='ResNet-Y', b='FasterNet-X', ratio=1.01, interval=[0.9, 1.1], verdict='within the noise'),
        ],
    )  # fmt: skip


def terminal(report: dict, width: int = 300) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(terminal_tables(report))
    return console.file.getvalue()


def rows(report: dict) -> list[dict]:
    return list(csv.DictReader(io.StringIO(csv_text(report))))


every_text = pytest.mark.parametrize('text_of', [terminal, markdown])


@pytest.mark.parametrize('text_of', [terminal, markdown, csv_text])
def test_every_label_is_in_every_format(report, text_of):
    for label in LABELS:
        assert label in text_of(report), label


@pytest.mark.parametrize(
    'block, number, labels',
    [
        ('## Detectors', '20.0', ['random weights', 'the machine was busy']),
        ('## Detectors', '50.0', ['random weights', 'the machine was busy']),  # images a second
        ('## Detectors', '16.0', ['random weights', 'measured in fp16']),
        ('## Detectors', '25.1', ['accuracy on 16 images only', 'not on COCO val2017']),
        ('## Backbones', '8.00', ['random weights']),
        ('## Where', '19.0', ['random weights', 'parts were timed one by one']),
    ],
)
def test_a_number_points_to_its_labels_below_the_table(report, block, number, labels):
    (section,) = [part for part in markdown(report).split('\n## ') if f'## {part}'.startswith(block)]
    (letters,) = {part.split('</sup>')[0] for part in section.split(f'| {number} <sup>')[1:]}
    below = [line for line in section.splitlines() if line.startswith('<sup>')]
    sentences = dict(line.removeprefix('<sup>').split('</sup> ', 1) for line in below)
    assert [sentences[letter] for letter in letters.split(',')] == labels


@every_text
def test_what_stands_below_the_tables(report, text_of):
    text = text_of(report)
    said = [' '.join(re.sub(r'<sup>.*?</sup>|\[[a-z](,[a-z])*\]|\|', '', line).split()) for line in text.splitlines()]
    assert 'FasterNet-X 1.25x [1.18, 1.33] ResNet-Y' in said
    assert 'ResNet-Y 0.99x [0.91, 1.11], within the noise FasterNet-X' in said
    assert 'parameters 3.1 % off' in text
    assert 'NoNet: nobody builds it' in text
    assert 'Classifier-Z: it could not be built' in text
    assert f'FasterNet-X, detector, compile fp32, batch 1: {ERROR}' in text
    assert 'Made-up GPU; torch 2.0.made.up; 2024-05-06T07:08:09Z' in text
    assert 'quoted, not measured here, from a made-up paper' in text and '39.9' in text


@every_text
def test_an_error_stands_where_the_numbers_would(report, text_of):
    (row,) = [line for line in text_of(report).splitlines() if 'compile' in line and ERROR not in line]
    assert 'FasterNet-X' in row and 'error' in row and 'ms' not in row
    assert not any(
        character.isdigit() for character in row.replace('fp32', '').replace(' 1 ', ' ').replace('64x96', '')
    )


def test_published_columns_name_their_hardware(report):
    assert '| model | paper: box AP | paper: GPU ms, Some GPU |\n' in markdown(report)
    assert '| FasterNet-X | *39.9* | *54.3* |\n' in markdown(report)


@pytest.mark.parametrize('text_of', [terminal, markdown])
def test_a_complete_report_does_not_say_incomplete_and_an_incomplete_one_does_first(report, text_of):
    assert 'INCOMPLETE' not in text_of(report)
    report['complete'] = False
    assert 'INCOMPLETE' in '\n'.join(text_of(report).splitlines()[:3])
    assert {row['complete'] for row in rows(report)} == {'False'}


def test_a_run_stopped_in_the_middle_can_be_shown(report):
    report['complete'], report['environment']['after'] = False, None
    report['models'][0]['measurements'][1].update(latency_ms=None, throughput=None)
    report['models'][1]['multiply_adds'] = None
    assert 'not measured' in terminal(report) and 'not measured' in markdown(report)
    assert len(rows(report)) == 6 and pictures(report)
    report['models'] = report['comparisons'] = []
    assert 'INCOMPLETE' in markdown(report) and rows(report) == [] and pictures(report) == {}


def test_numbers_stay_whole_in_a_terminal_of_120_columns(report):
    text = terminal(report, 120)
    for number in ('20.0 [', '50.0 [', '16.0 [', '25.1 [', '8.00 [', '19.0 [', '39.9', '54.3', '1.23', '4.50'):
        assert number in text, number


def test_csv_has_a_line_for_each_measurement_and_for_a_model_without(report):
    lines = rows(report)
    assert [line['name'] for line in lines] == ['FasterNet-X'] * 4 + ['ResNet-Y', 'Classifier-Z']
    assert float(lines[0]['latency_ms.p50']) == 20 and lines[0]['shape'] == '64x96'
    assert lines[0]['labels'] == 'random weights; the machine was busy; parts were timed one by one'
    assert lines[2]['error'] == ERROR and lines[2]['latency_ms.p50'] == lines[2]['throughput'] == ''
    assert float(lines[4]['evaluation.metrics.coco/bbox_mAP']) == 0.251
    # the floors of its own dtype and batch size, without layers
    assert [line['roofline.memory_floor_ms'] for line in lines[:2]] == ['3.0', '']
    assert not any('layers' in name or name == 'rooflines' for name in lines[0])
    assert lines[5]['model_error'] == 'it could not be built' and lines[5]['mode'] == ''


def test_what_is_written_is_read_again(report, tmp_path):
    folder = tmp_path / 'new' / 'folder'
    write(report, folder)
    assert load(folder) == load(folder / 'report.json') == report
    assert (folder / 'report.md').read_text() == markdown(report)
    assert (folder / 'report.csv').read_text() == csv_text(report)
    assert {path.name for path in folder.iterdir()} == {'report.json', 'report.md', 'report.csv', *pictures(report)}


def test_a_folder_that_cannot_be_written(report, tmp_path):
    (tmp_path / 'file').write_text('here first')
    with pytest.raises(UserError, match='cannot be written to .*file/folder: .*choose another folder'):
        write(report, tmp_path / 'file' / 'folder')
    assert [path.name for path in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize(
    'content, said',
    [
        (None, 'report not found: .*report.json'),
        ('{"schema": ', 'is not JSON'),
        ('[]', "has schema None, not 'fasternet_mm.report/1'"),
        ('{"schema": "fasternet_mm.report/9"}', "has schema 'fasternet_mm.report/9', not 'fasternet_mm.report/1'"),
    ],
)
def test_a_file_that_is_no_report(tmp_path, content, said):
    if content is not None:
        (tmp_path / 'report.json').write_text(content)
    with pytest.raises(UserError, match=said) as raised:
        load(tmp_path)
    assert '\n' not in str(raised.value)


def test_compare_names_what_differs_between_two_runs(report):
    later = json.loads(json.dumps(report))
    later['options']['repeats'] = 30
    later['models'][0]['config_sha256'] = '1' * 64
    machine = later['environment']['before']
    machine['packages'] |= dict(torch='2.1.made.up', timm='1.0')
    machine['gpu'] |= dict(temperature_c=41, sm_clock_mhz=1500)
    text = compare([report, later], ['old', 'new'])
    table = text.split('## What differs')[1].split('##')[0].strip().splitlines()[2:]
    assert {line.split('|')[1].strip(): [cell.strip() for cell in line.split('|')[2:4]] for line in table} == {
        'packages.torch': ['2.0.made.up', '2.1.made.up'],
        'packages.timm': ['-', '1.0'],
        'gpu.sm_clock_mhz': ['1000', '1500'],  # one degree is not worth a line, half the clock is
        'options.repeats': ['20', '30'],
        'FasterNet-X: config_sha256': ['0' * 64, '1' * 64],
    }


def test_compare_joins_measurements_and_labels_the_ratios(report):
    later = json.loads(json.dumps(report))
    later['models'][0]['measurements'][0]['latency_ms']['p50'] = 30
    later['models'].pop(1)
    text = compare([report, later], ['old', 'new'])
    assert 'Environment, options, configs and weights are the same' in text
    (row,) = [line for line in text.splitlines() if line.startswith('| FasterNet-X | detector | eager |')]
    cells = [cell.split(' <sup>')[0].strip() for cell in row.strip('|').split('|')]
    assert cells[-3:] == ['20.0', '30.0', '1.50x'] and row.count('<sup>') == 3
    assert 'new / old, not measured side by side' in text
    assert 'random weights' in text and 'the machine was busy' in text and ERROR in text
    assert 'old: ResNet-Y, detector, eager, fp32, 1, 64x96' in text.split('## Measured in one run only')[1]


def test_compare_says_which_run_is_incomplete(report):
    later = dict(copy.deepcopy(report), complete=False)
    assert '**new is INCOMPLETE' in compare([report, later], ['old', 'new'])


def test_pictures(report):
    drawn = pictures(report)
    assert set(drawn) == {'accuracy_over_latency.png', 'latency.png', 'split.png', 'roofline.png'}
    for name, content in drawn.items():
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        height, width = picture.shape[:2]
        assert 800 <= width <= 1600 and 200 <= height <= 1600, name
        assert picture.std() > 5, name


def test_no_picture_without_data(report):
    for one in report['models']:
        one.update(measurements=[], split=None, rooflines=[])
    assert pictures(report) == {}


def test_the_picture_of_latencies_grows_with_its_rows(report):
    def height(report):
        return cv2.imdecode(np.frombuffer(pictures(report)['latency.png'], np.uint8), cv2.IMREAD_COLOR).shape[0]

    before = height(report)
    report['models'] += [model(f'Net-{n}', 'detector', measurements=[measurement('detector', 'eager', n + 5)])
                         for n in range(20)]  # fmt: skip
    assert height(report) > before + 20 * 20


@pytest.mark.parametrize('name', ['accuracy_over_latency.png', 'latency.png', 'split.png'])
def test_labels_stand_in_the_captions(report, name, monkeypatch):
    from matplotlib.figure import Figure

    written = []
    original = Figure.text
    monkeypatch.setattr(Figure, 'text', lambda *a, **k: written.append(a[3]) or original(*a, **k))
    wanted = {
        'accuracy_over_latency.png': ['random weights', 'the machine was busy', 'not on COCO val2017'],
        'latency.png': ['random weights', 'the machine was busy', 'measured in fp16'],
        'split.png': ['random weights', 'parts were timed one by one'],
    }[name]
    pictures(report)
    caption = written[['accuracy_over_latency.png', 'latency.png', 'split.png'].index(name)]
    for text in (*wanted, 'Made-up GPU', 'fp32', 'batch 1', 'torch 2.0.made.up', '2024-05-06'):
        assert text in caption
