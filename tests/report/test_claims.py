"""The paper's claims: verdicts follow from the files by rules, and the page is what the files say."""

import importlib.util
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from fasternet_mm.errors import UserError
from fasternet_mm.report import save
from fasternet_mm.report.claims import claims_page, load_evidence
from fasternet_mm.report.claims.claim import FAILS, HOLDS, NOISE, SMALLER, verdict_at_least
from fasternet_mm.report.claims.evidence import Times
from fasternet_mm.report.claims.page import SECTIONS
from fasternet_mm.report.schema import Comparison, Published, Side
from tests.helpers import REPO

from .made_up import made_up_report, measurement, model

PAGE = REPO / 'docs' / 'claims.md'


def test_the_page_is_what_the_results_say():
    """Write it again by `python tools/claims.py docs/results --out docs/claims.md`."""
    assert claims_page(load_evidence([REPO / 'docs' / 'results']), PAGE) == PAGE.read_text()


@pytest.mark.parametrize(
    'times, verdict',
    [
        (Times(3.0, 2.9, 3.1), HOLDS),
        (Times(2.6, 2.5, 2.7), HOLDS),  # nine tenths of 3
        (Times(2.0, 1.9, 2.1), SMALLER),
        (Times(1.1, 0.9, 1.3), NOISE),
        (Times(0.8, 0.7, 0.9), FAILS),
    ],
)
def test_a_ratio_holds_by_its_interval(times, verdict):
    assert verdict_at_least(times, 3.0) == verdict


def test_a_quotient_of_ratios_is_less_certain_than_either():
    a, b = Times(2.0, 1.8, 2.2), Times(4.0, 3.8, 4.2)
    quotient = a.over(b)
    assert quotient.ratio == 0.5
    for one in (a, b):
        assert np.log(quotient.high / quotient.low) > np.log(one.high / one.low)
    inverse = b.over(a).inverse
    assert (inverse.low, inverse.high) == pytest.approx((quotient.low, quotient.high))


def classifier(name: str, p50: float, batch_size: int = 1):
    timed = measurement('classifier', 'fused', p50, device='cpu', batch_size=batch_size, shape=[64, 96])
    return model(name, 'classifier', published=Published(network=name, source='a table'), measurements=[timed])


def report_of(*models, comparisons=()):
    return replace(made_up_report(), models=list(models), comparisons=list(comparisons))


def compared(a: str, b: str, ratio: float) -> Comparison:
    sides = [Side(name, 'fused', 'fp32') for name in (a, b)]
    return Comparison('classifier', 'fused', 'fp32', 1, a, b, *sides, ratio, [0.99 * ratio, 1.01 * ratio], 'x')


def row_of(page: str, claim: str) -> str:
    (row,) = [line for line in page.splitlines() if line.startswith(f'| {claim}')]
    return row


@pytest.mark.parametrize('ratio, verdict', [(3.3, HOLDS), (2.0, SMALLER), (0.5, FAILS)])
def test_networks_that_took_turns_with_a_third_are_compared_through_it(tmp_path, ratio, verdict):
    models = [classifier('FasterNet-T0', 10), classifier('MobileViT-XXS', 10), classifier('FasterNet-T2', 10)]
    turns = [compared('FasterNet-T0', 'FasterNet-T2', 0.25), compared('MobileViT-XXS', 'FasterNet-T2', 0.25 * ratio)]
    save(report_of(*models, comparisons=turns), tmp_path / 'mine')
    page = claims_page(load_evidence([tmp_path]), tmp_path / 'docs' / 'claims.md')
    row = row_of(page, 'FasterNet-T0 is faster than MobileViT-XXS on a CPU')
    assert f'{ratio:.2f} [' in row and row.endswith(f'**{verdict}** |')
    assert '[Made-up CPU, 1 thread, batch 1, 2024-05-06](../mine/report.json): fused fp32: ' in row


def test_what_took_no_turns_is_compared_by_medians(tmp_path):
    save(report_of(classifier('FasterNet-T0', 10), classifier('MobileViT-XXS', 40)), tmp_path)
    row = row_of(claims_page(load_evidence([tmp_path]), PAGE), 'FasterNet-T0 is faster than MobileViT-XXS on a CPU')
    assert '4.00 [' in row and HOLDS in row


def test_what_is_not_measured_says_which_command_does_it(tmp_path):
    save(made_up_report(), tmp_path)
    page = claims_page(load_evidence([tmp_path]), PAGE)
    row = row_of(page, 'FasterNet-T0 is faster than MobileViT-XXS on a CPU')
    assert '`python tools/report.py --suite table3' in row and row.endswith('**not measured** |')
    assert row_of(page, 'FasterNet-T0 is more accurate').endswith('**cannot be tested here** |')


@pytest.mark.parametrize('command', sorted({one for claims in SECTIONS.values() for claim in claims
                                            for one in re.findall('python tools/[^`]+', claim.needs)}))  # fmt: skip
def test_the_commands_are_understood(command):
    _, tool, *arguments = command.split()
    tool_of(tool).parse_args(arguments)


@pytest.mark.parametrize('labels', [[], ['random weights']])
def test_random_weights_say_nothing_of_features(tmp_path, labels):
    counts = [1, 2, 1, 2, 9, 2, 1, 2, 1]
    stage = dict(name='1', layers=['conv'], filters=sum(counts), counts=counts, energy=[1 / 9] * 9)
    study = dict(
        schema='fasternet_mm.study/1', study='salient', created='2024-05-06T07:08:09Z', model='net', images=None,
        labels=labels, result=dict(stages=[stage]), environment=asdict(made_up_report().environment.before),
    )  # fmt: skip
    (tmp_path / 'study.json').write_text(json.dumps(study))
    row = row_of(claims_page(load_evidence([tmp_path]), PAGE), 'The centre of a 3x3 filter')
    assert row.endswith(f'**{HOLDS}** |') == ('largest in 43 % of 21 filters' in row) == (not labels)


def tool_of(path: str):
    spec = importlib.util.spec_from_file_location('tool', REPO / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tool_writes_the_page_and_says_where(tmp_path, capsys):
    save(made_up_report(), tmp_path)
    out = tmp_path / 'docs' / 'claims.md'
    tool_of('tools/claims.py').main([str(tmp_path), '--out', str(out)])
    assert out.read_text() == claims_page(load_evidence([tmp_path]), out)
    assert f'written to {out}' in capsys.readouterr().out


def test_a_page_that_cannot_be_written_is_named_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match='is a folder; name a file'):
        tool_of('tools/claims.py').main(['nowhere', '--out', str(tmp_path)])


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(UserError, match='has neither a'):
        load_evidence([tmp_path])
