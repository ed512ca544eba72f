"""From the command line to a run: options, configs, and whose mistake an error is."""

import runpy

import pytest
from mmengine.config import Config

from fasternet_mm.engine import preflight, runner
from fasternet_mm.errors import UserError
from tests.helpers import REPO

COMMANDS = {
    'train.py': ['c.py', '--amp', '--resume', '--work-dir', 'w', '--cfg-options', 'a.b=1'],
    'test.py': ['c.py', 'x.pth', '--out', 'r.pkl', '--tta', '--launcher', 'none'],
    'convert_checkpoint.py': ['a.pth', 'b.pth', '--to', 'timm'],
    'draw_detections.py': ['c.py', 'x.pth', '--num-images', '2'],
    'make_sample.py': ['data', '--num-train', '3'],
}


@pytest.mark.parametrize('tool', COMMANDS)
def test_a_documented_command_line_can_be_parsed_without_running_it(monkeypatch, tool):
    monkeypatch.setenv('LOCAL_RANK', '0')
    parse_args = runpy.run_path(str(REPO / 'tools' / tool))['parse_args']
    assert COMMANDS[tool][0] in vars(parse_args(COMMANDS[tool])).values()
    with pytest.raises(SystemExit):
        parse_args(['--no-such-option'])
    monkeypatch.setattr('sys.argv', [tool, *COMMANDS[tool]])
    assert parse_args() == parse_args(COMMANDS[tool])


MISTAKES = {
    'syntax': ('model = dict(', 'SyntaxError'),
    'a name': ('a = b', "NameError: name 'b' is not defined"),
    'a base that is not there': ("_base_ = 'nowhere.py'", 'nowhere.py'),
    'a base of a package that is not there': ("_base_ = 'mmdet::rtmdet/nowhere.py'", 'nowhere.py'),
    'an import': ("custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)", 'no_such_module'),
}


@pytest.mark.parametrize('case', MISTAKES)
def test_a_mistake_in_a_config_is_its_authors(tmp_path, case):
    content, told = MISTAKES[case]
    (tmp_path / 'c.py').write_text(content)
    with pytest.raises(UserError, match='c.py cannot be read: ') as error:
        runner.load_config(str(tmp_path / 'c.py'))
    assert told in str(error.value)


def bug(*args, **kwargs):
    raise AttributeError('a bug')


def test_a_bug_stays_one(monkeypatch, tmp_path, tiny):
    (tmp_path / 'c.py').write_text('a = 1')
    with monkeypatch.context() as context, pytest.raises(AttributeError, match='a bug'):
        context.setattr(Config, 'merge_from_dict', bug)
        runner.load_config(str(tmp_path / 'c.py'))
    monkeypatch.setattr(preflight, 'FasterNet', bug)
    with pytest.raises(AttributeError, match='a bug'):
        preflight.check_config(Config(dict(model=dict(backbone=dict(type='FasterNet', **tiny)))), 'test')
