"""``python -m fasternet_mm``, for a bug report."""

from importlib.metadata import version
from pathlib import Path

import pytest

from fasternet_mm import __main__ as main
from fasternet_mm import __version__, machine, patches


def test_what_a_bug_report_needs():
    text = main.describe()
    facts = dict(line.split(': ', 1) for line in text.splitlines() if ': ' in line and not line.startswith(' '))
    assert text.startswith('```\n') and text.endswith('\n```')
    assert facts['fasternet_mm'].startswith(__version__)
    assert all(facts[name] == version(name) for name in ('torch', 'torchvision', 'mmengine', 'mmdet', 'mmpretrain'))
    assert facts['operators of mmcv'].startswith(('torchvision, through ', 'compiled, '))
    assert (Path(facts['configs']) / 'mask_rcnn_fasternet_s.py').is_file()
    assert (Path(facts['tools']) / 'train.py').is_file()
    for patch in patches.PATCHES:
        assert f'\n  {patch.target}: {patch.why}\n' in text


X86 = 'processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nflags\t\t: fpu smep avx2 avx512f avx512_bf16 amx_tile\n'
ARM = 'processor\t: 0\nFeatures\t: fp asimd asimdhp sve bf16\n'


@pytest.mark.parametrize(
    ('content', 'sets'),
    [(X86, 'amx_tile avx2 avx512_bf16 avx512f'), (ARM, 'asimd asimdhp bf16 sve'), (None, 'unknown ones')],
    ids=['x86', 'arm', 'no /proc/cpuinfo'],
)
def test_processors_of_every_kind(monkeypatch, tmp_path, content, sets):
    monkeypatch.setattr(machine, '_CPUINFO', tmp_path / 'cpuinfo')
    if content:
        (tmp_path / 'cpuinfo').write_text(content)
    assert machine.instruction_sets() == sets
    assert machine.capability().endswith('with bf16' if content else 'without bf16')
    assert machine.processor() == 'A CPU @ 2 GHz' if content is X86 else machine.processor()


def test_a_limited_processor_says_so(monkeypatch):
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', 'AVX2')
    assert machine.capability().endswith(', limited by ONEDNN_MAX_CPU_ISA=AVX2')


def test_processors_of_one_name_are_told_apart(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, '_CPUINFO', tmp_path / 'cpuinfo')
    (tmp_path / 'cpuinfo').write_text('cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n')
    assert machine.processor() == 'AMD EPYC (family 25, model 17)'
