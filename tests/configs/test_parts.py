"""A base names its parts, and a leaf replaces one by name."""

import ast

import pytest

from tests.helpers import REPO

CONFIGS = sorted((REPO / 'configs').rglob('*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_no_config_cuts_into_its_base(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Delete | ast.Subscript), f'{path}:{node.lineno}'
        if isinstance(node, ast.Assign):
            assert all(isinstance(target, ast.Name) for target in node.targets), f'{path}:{node.lineno}'
