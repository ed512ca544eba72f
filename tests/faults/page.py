"""Write docs/reliability.md from a run of these tests: ``python -m pytest -p tests.faults.page tests/faults``."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator

import pytest

from fasternet_mm.errors import UserError
from tests.helpers import REPO

PAGE = REPO / 'docs' / 'reliability.md'
FAMILIES = {
    'test_config': 'What a config builds',
    'test_arguments': 'Arguments',
    'test_annotations': 'Classes, annotations and images',
    'test_sources': 'Checkpoint files and their names',
    'test_tensors': 'What a checkpoint holds',
    'test_resuming': 'What --resume goes on from',
    'test_retiring': 'What a training deletes',
    'test_health': 'Trainings that diverge',
    'test_work_dir': 'Work dirs',
    'test_files': 'Files and folders that are written',
    'test_signals': 'Signals, workers, and how a tool ends',
    'test_scripts': 'Shell scripts',
}
HEAD = f"""# What was tried to break it, and what does each give?

Wrong inputs and faults, family by family: what is tried, in how many cases, and the last error of up to two
of them. A row without an error is about something that goes on, or that ends in a process of its own. The
tests wrote this page themselves:
`{__doc__.split('``')[1]}`.

`python -m tests.faults.kill_and_resume` kills and starves a training at random times, and compares its losses
with those of one that nobody touched.
"""
MOST = 220  # characters of an error

_cases, _said, _now = Counter(), {}, []


def _noted(error: UserError, *args) -> None:
    super(UserError, error).__init__(*args)
    if _now and args:
        _said.setdefault(_now[-1], {})[_now[0]] = str(args[0])


def pytest_configure(config: pytest.Config) -> None:
    UserError.__init__ = _noted


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    name = item.module.__name__.rpartition('.')[2], item.originalname
    _cases[name] += 1
    _now[:] = item.name, name
    try:
        return (yield)
    finally:
        _now.clear()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == 0:
        PAGE.write_text('\n'.join(_lines()))


def _lines() -> Iterator[str]:
    yield HEAD
    for module, title in FAMILIES.items():
        yield f'## {title}\n'
        yield '| what is tried | cases | what it says |\n|---|---|---|'
        for (of, test), count in _cases.items():
            if of == module:
                texts = list(dict.fromkeys(map(_shown, _said.get((of, test), {}).values())))[:2]
                yield f'| {test.removeprefix("test_").replace("_", " ")} | {count} | {"<br>".join(texts)} |'
        yield ''


def _shown(text: str) -> str:
    """Return an error without the folders of the run, in one line of a table."""
    text = re.sub(rf'{re.escape(tempfile.gettempdir())}/[^\s,;:\')]*/', '.../', ' '.join(text.split()))
    text = ''.join(c if c.isprintable() else '?' for c in text.replace(f'{REPO}/', ''))
    text = text if len(text) <= MOST else f'{text[:MOST]} ...'
    return '`' + text.replace('|', '/').replace('`', "'") + '`'
