"""docs/data.md has each kind of finding as the doctor knows it."""

import re

import pytest

from fasternet_mm.doctor import KINDS, Severity
from tests.helpers import REPO

SECTIONS = dict(re.findall(r'^## What (\S+).*?\n(.*?)(?=^## )', (REPO / 'docs' / 'data.md').read_text(), re.S | re.M))
OF = {Severity.STOPS: 'stops', Severity.SPOILS: 'spoils', Severity.NOTICE: 'is'}


@pytest.mark.parametrize('severity', Severity)
def test_the_page_says_what_each_finding_means(severity):
    table = [
        [cell.strip() for cell in row.split('|')[1:-1]] for row in re.findall(r'^\|.*\|$', SECTIONS[OF[severity]], re.M)
    ]
    kinds = [kind for kind in KINDS.values() if kind.severity is severity]
    assert table[2:] == [[kind.title, kind.why, kind.mend][: len(table[0])] for kind in kinds]
