"""A report says the same in the terminal, in markdown and in csv, and its labels with every number."""

import csv
import io
import re

import pytest
from rich.console import Console

from fasternet_mm.errors import UserError
from fasternet_mm.report import load, terminal_tables, write
from fasternet_mm.report.render.files import csv_text
from fasternet_mm.report.render.markdown import markdown
from fasternet_mm.report.render.pictures import pictures
from fasternet_mm.report.schema import Report

from .made_up import ERROR, LABELS, made_up_report


@pytest.fixture
def report():
    return made_up_report()


def terminal(report: Report, width: int = 300) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(terminal_tables(report))
    return console.file.getvalue()


def rows(report: Report) -> list[dict]:
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
    report.complete = False
    assert 'INCOMPLETE' in '\n'.join(text_of(report).splitlines()[:3])
    assert {row['complete'] for row in rows(report)} == {'False'}


def test_a_run_stopped_in_the_middle_can_be_shown(report):
    report.complete, report.environment.after = False, None
    stopped = report.models[0].measurements[1]
    stopped.latency_ms = stopped.throughput = None
    report.models[1].multiply_adds = None
    assert 'not measured' in terminal(report) and 'not measured' in markdown(report)
    assert len(rows(report)) == 6 and pictures(report)
    report.models, report.comparisons = [], []
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
