"""Several runs beside each other: what differs, and ratios that are labelled."""

import copy
from dataclasses import replace

import pytest

from fasternet_mm.report import compare

from .made_up import ERROR, made_up_report


@pytest.fixture
def report():
    return made_up_report()


def test_compare_names_what_differs_between_two_runs(report):
    later = copy.deepcopy(report)
    later.options['repeats'] = 30
    later.models[0].config_sha256 = '1' * 64
    machine = later.environment.before
    machine.packages |= dict(torch='2.1.made.up', timm='1.0')
    machine.gpu.temperature_c, machine.gpu.sm_clock_mhz = 41, 1500
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
    later = copy.deepcopy(report)
    later.models[0].measurements[0].latency_ms.p50 = 30
    later.models.pop(1)
    text = compare([report, later], ['old', 'new'])
    assert 'Environment, options, configs and weights are the same' in text
    (row,) = [line for line in text.splitlines() if line.startswith('| FasterNet-X | detector | eager |')]
    cells = [cell.split(' <sup>')[0].strip() for cell in row.strip('|').split('|')]
    assert cells[-3:] == ['20.0', '30.0', '1.50x'] and row.count('<sup>') == 3
    assert 'new / old, not measured side by side' in text
    assert 'random weights' in text and 'the machine was busy' in text and ERROR in text
    assert 'old: ResNet-Y, detector, eager, fp32, 1, 64x96' in text.split('## Measured in one run only')[1]


def test_compare_says_which_run_is_incomplete(report):
    later = replace(report, complete=False)
    assert '**new is INCOMPLETE' in compare([report, later], ['old', 'new'])
