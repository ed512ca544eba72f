"""The network knows nobody: what loads it, deploys it or reports on it knows it, not the other way round."""

import ast
from pathlib import Path

import pytest

import fasternet_mm.models
from fasternet_mm import FasterNet

FILES = sorted(Path(fasternet_mm.models.__file__).parent.glob('*.py'))
NETWORK = ast.parse(Path(fasternet_mm.models.__file__).with_name('fasternet.py').read_text())


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_no_file_imports_another_folder_of_ours_at_module_level(path):
    package = path.parents[1]
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            assert (package / f'{node.module}.py').is_file(), f'line {node.lineno}: from ..{node.module}'
        names = [alias.name for alias in getattr(node, 'names', [])] + [getattr(node, 'module', '') or '']
        assert not [name for name in names if name.startswith('fasternet_mm')]


@pytest.mark.parametrize('name', ['switch_to_deploy', '_checkpoint_filter'])
def test_a_method_that_hands_over_is_an_import_and_a_call(name):
    (network,) = [node for node in NETWORK.body if isinstance(node, ast.ClassDef) and node.name == 'FasterNet']
    (method,) = [node for node in network.body if isinstance(node, ast.FunctionDef) and node.name == name]
    docstring, *body = method.body
    assert [type(statement) for statement in body] == [ast.ImportFrom, ast.Expr]
    assert callable(getattr(FasterNet, name))
