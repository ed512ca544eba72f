"""The format of report.json: what it holds, what of it is refused, and that yesterday's files are still read."""

import ast
import dataclasses
import inspect
import json
import re
from pathlib import Path

import pytest

import fasternet_mm.report
from fasternet_mm.errors import UserError
from fasternet_mm.report import MODES, load, schema
from fasternet_mm.report.render.markdown import markdown
from fasternet_mm.report.schema import Mode, Side, from_json, to_json
from tests.helpers import REPO

from .made_up import made_up_report

EARLIER = REPO / 'tests' / 'data' / 'report_schema1.json'  # written by 0.1.0
MEASURED = sorted((REPO / 'docs' / 'results').rglob('*report.json'))
PAGE = (REPO / 'docs' / 'report_schema.md').read_text()


def test_what_is_written_is_what_is_read():
    report = made_up_report()
    assert from_json(json.loads(json.dumps(to_json(report))), 'x') == report


@pytest.mark.parametrize('path', [EARLIER, *MEASURED], ids=lambda path: path.stem)
def test_files_from_before_are_read_and_look_as_they_did(path):
    report = load(path)
    assert markdown(report) == path.with_suffix('.md').read_text()
    data = to_json(report)
    assert from_json(data, 'x') == report  # with the fields that it lacked
    assert_kept(json.loads(path.read_text()), data)


def assert_kept(before, after) -> None:
    """Every field of a file is written again, with its value."""
    if isinstance(before, dict):
        for key, value in before.items():
            assert_kept(value, after[key])
    elif isinstance(before, list):
        for a, b in zip(before, after, strict=True):
            assert_kept(a, b)
    else:
        assert before == after


def test_the_sides_of_comparisons_from_before_are_told_apart():
    report = load(EARLIER)
    sides = {one.a: one.side_a for one in report.comparisons}
    assert sides['tiny_detector [deploy bf16]'] == Side('tiny_detector', 'deploy', 'bf16')
    assert sides['tiny_detector [fused]'].mode == 'fused'
    assert sides['fasternet_t0_in1k'].model == 'fasternet_t0_in1k'
    for one in report.comparisons:
        assert (one.a, one.b) == (one.side_a.named(one.side_b), one.side_b.named(one.side_a))
        assert (one.mode, one.dtype) == (one.side_a.mode, one.side_a.dtype)
    measurements = [m for model in report.models for m in model.measurements]
    assert {m.mode for m in measurements if m.unsupported} == {'graphs', 'openvino'}
    assert all(m.error for m in measurements if m.unsupported)


def paths_of(value, path=()):
    """Each field of a report, as the path to it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(value, dict):
            yield (*path, key)
        yield from paths_of(inner, (*path, key))


FREE = {'options', 'packages', 'parts', 'metrics'}  # whose keys are not fields
SPARSE = {'published', 'gpu'}
# which files from before lack
LATER = {'side_a', 'side_b', 'unsupported', 'detections', 'agreement', 'file_size', 'operator', 'memory_access'}
LATER_OF = {('evaluation', 'measurements'), ('mode', 'rooflines')}


@pytest.mark.parametrize('add', [False, True], ids=['missing', 'unknown'])
def test_a_field_too_few_or_too_many_is_named(tmp_path, add):
    whole = to_json(made_up_report())
    for path in paths_of(whole):
        if FREE & set(path[:-1]) or path == ('schema',) or (SPARSE & set(path[:-1]) and path[-1] != 'name' and not add):
            continue
        data = json.loads(json.dumps(whole))
        parent = data
        for key in path[:-1]:
            parent = parent[key]
        if add:
            parent['surplus'] = 1
        elif path[-1] in LATER or any(path[-1] == key and of in path for key, of in LATER_OF):
            continue
        else:
            del parent[path[-1]]
        (tmp_path / 'report.json').write_text(json.dumps(data))
        with pytest.raises(UserError) as raised:
            load(tmp_path)
        place = re.sub(r'\.(\d+)', r'[\1]', '.'.join(map(str, ('report', *path[:-1]))))
        said = "has an unknown field 'surplus'" if add else f'has no field {path[-1]!r}'
        assert f'{tmp_path}/report.json: {place} {said}' in str(raised.value)


@pytest.mark.parametrize(
    'change, said',
    [
        (dict(models={}), "report.models is {}, expected list"),
        (dict(models=[1]), 'report.models[0] is 1, expected Model'),
        (dict(complete='no'), "report.complete is 'no', expected bool"),
        (dict(environment=None), 'report.environment is None, expected Environment'),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_named(change, said):
    with pytest.raises(UserError, match=re.escape(said)):
        from_json(to_json(made_up_report()) | change, 'x')


def test_the_page_lists_every_field_with_its_type_and_unit():
    def fields_of(kind) -> dict[str, str]:
        types = {one.name: inspect.formatannotation(one.type) for one in dataclasses.fields(kind)}
        return {name: text.replace(f'{schema.__name__}.', '').replace(' | ', ' or ') for name, text in types.items()}

    kinds = {name: kind for name, kind in vars(schema).items() if dataclasses.is_dataclass(kind) and kind is not Mode}
    listed = {}
    for section in PAGE.split('\n## ')[1:]:
        rows = [[cell.strip() for cell in line.strip('|').split(' | ')] for line in section.splitlines()
                if line.startswith('| ') and not line.startswith(('| field |', '| --- |'))]  # fmt: skip
        assert all(len(row) == 3 and row[2] for row in rows)
        listed[section.split('\n')[0]] = {field: kind for field, kind, _ in rows}
    assert listed == {name: fields_of(kind) for name, kind in kinds.items()}


def test_the_page_lists_every_mode():
    (row,) = [line for line in PAGE.splitlines() if line.startswith('| mode | str | "eager"')]
    assert re.findall('"(.*?)"', row) == list(MODES)


WINGS = Path(fasternet_mm.report.__file__).parent


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, by full name."""
    package = ['fasternet_mm', 'report', *path.relative_to(WINGS).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found.add('.'.join([*base, *([node.module] if node.module else [])]))
    return found


@pytest.mark.parametrize('wing', ['measure', 'paper', 'render'])
def test_the_wings_do_not_know_each_other(wing):
    others = {'measure', 'paper', 'render'} - {wing}
    for path in (WINGS / wing).rglob('*.py'):
        for module in imports_of(path):
            assert not module.startswith(tuple(f'fasternet_mm.report.{other}' for other in others)), path
            assert not (wing == 'render' and module.split('.')[0] == 'torch'), path
    assert not any(module.startswith('fasternet_mm.report') for module in imports_of(WINGS / 'schema.py'))
