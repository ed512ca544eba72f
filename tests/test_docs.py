"""What README, docs and CONTRIBUTING tell people to type, click and believe."""

import ast
import importlib.util
import json
import os
import pkgutil
import re
import runpy
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from fasternet_mm.checkpoint import official_url
from fasternet_mm.checkpoint.loading import cached_file
from fasternet_mm.version import __version__
from tests.helpers import REPO
from tests.helpers.exported import write_exported
from tests.helpers.golden import official_state_dict

PAGES = [REPO / 'README.md', REPO / 'CONTRIBUTING.md', *sorted((REPO / 'docs').glob('*.md'))]
TEXTS = {str(path.relative_to(REPO)): path.read_text() for path in PAGES}
BLOCKS = [
    (page, language, code)
    for page, text in TEXTS.items()
    for language, code in re.findall(r'^```(\w+)\n(.*?)^```', text, re.S | re.M)
]
PYTHON = [pytest.param(code, id=f'{page}: {code.splitlines()[-1]}') for page, language, code in BLOCKS
          if language == 'python']  # fmt: skip
SCRIPTS = [param for param in PYTHON if re.search('^(from|import) ', param.values[0], re.M)]
CONFIGS = [param for param in PYTHON if param not in SCRIPTS]
LINES = [(page, line.strip()) for page, language, code in BLOCKS if language == 'bash'
         for line in code.replace('\\\n', '').splitlines() if line.strip()]  # fmt: skip
COMMANDS = [pytest.param(line, id=f'{page}: {" ".join(line.split(" #")[0].split())}') for page, line in LINES]
TOOLS = sorted(path.name for path in (REPO / 'tools').glob('*.py'))
PROSE = '\n'.join(re.sub(r'^```.*?^```', '', text, flags=re.S | re.M) for text in TEXTS.values())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in an empty folder, as in a new process: no scope is left behind by a test before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DefaultScope, '_instance_dict', type(DefaultScope._instance_dict)())
    return tmp_path


# Python blocks


@pytest.mark.parametrize('code', CONFIGS)
def test_a_config_builds(code, folder):
    if '_base_' not in code:  # the edits to any config
        code = f"_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\n{code}"
    (folder / 'configs').symlink_to(REPO / 'configs')
    (folder / 'mine.py').write_text(code)
    cfg = Config.fromfile('mine.py')
    assert cfg.custom_imports.imports == ['fasternet_mm']
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert type(model.backbone).__name__ == ('FasterNet' if 'model' in code else 'ResNet')


def test_ten_lines_for_ones_own_classes_train_and_evaluate(folder, run_tool, sample):
    (code,) = [param.values[0] for param in CONFIGS if 'mask_head' in param.values[0]]
    assert len(code.splitlines()) == 10
    code = code.replace("'./configs/mask_rcnn_fasternet_s.py'", repr(str(REPO / 'configs/mask_rcnn_fasternet_t0.py')))
    code = code.replace('data/sample', str(sample))
    (folder / 'mine.py').write_text(code)
    small = [f'{split}_dataloader.{setting}' for split in ('train', 'val') for setting in
             ('num_workers=0', 'persistent_workers=False')]  # fmt: skip
    small += ['train_dataloader.dataset.pipeline.2.scale=(64,64)', 'val_dataloader.dataset.pipeline.1.scale=(64,64)']
    done = run_tool('train.py', folder / 'mine.py', '--work-dir', folder / 'work', '--cfg-options',
                    'model.backbone.init_cfg=None', 'model.train_cfg.rpn_proposal.max_per_img=64',
                    'train_cfg.max_epochs=1', *small)  # fmt: skip
    assert re.search(r'coco/bbox_mAP: [\d.]+.*coco/segm_mAP: [\d.]+', done.stdout)


def finds_and_draws(names: dict) -> bool:
    return (
        set(names['result']['predictions'][0]) == {'bboxes', 'labels', 'scores', 'masks'}
        and Path('found/vis/picture.jpg').is_file()
    )


def four_maps(names: dict) -> bool:
    return [224 // one.shape[-1] for one in names['maps']] == [4, 8, 16, 32]


def finds_above_the_threshold(names: dict) -> bool:
    return names['found'].names == ('square',) and names['found'].masks.shape == (1, 48, 64)


def replaces(names: dict) -> bool:
    return any(row.kept is None for row in names['rows']) and any(row.kept for row in names['rows'])


# what a block promises beside running, by a word in it
PROMISES = {
    'DetInferencer': finds_and_draws,
    'maps =': four_maps,
    'ExportedModel': finds_above_the_threshold,
    'rows =': replaces,
}


@pytest.mark.parametrize('code', SCRIPTS)
def test_a_script_runs(code, folder, monkeypatch):
    """As it stands, where the files that it names are small ones."""
    if 'mask_rcnn' in code:
        put_small_detector()
    if 'detector.onnx' in code:
        write_exported(Path('detector.onnx'))
        shutil.copy(REPO / 'fasternet_mm' / 'deploy' / 'runtime.py', folder)
        monkeypatch.syspath_prepend(folder)
    if 'pretrained=True' in code:
        monkeypatch.setenv('TORCH_HOME', str(folder))
        cached = cached_file(official_url('fasternet_s'))
        cached.parent.mkdir(parents=True)
        torch.save(official_state_dict('s', 'classification', seed=0), cached)
    noise = np.random.RandomState(0).randint(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save('picture.jpg')
    Path('block.py').write_text(code)
    names = runpy.run_path('block.py')
    for word, holds in PROMISES.items():
        assert word not in code or holds(names)


def put_small_detector() -> None:
    """Write the sample set's config and random weights for it under the names that the docs use."""
    config = Path('configs/mask_rcnn_fasternet_s.py')
    config.parent.mkdir()
    config.write_text(f'_base_ = {str(REPO / "configs" / "mask_rcnn_fasternet_t0_sample.py")!r}\n')
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmdet'):
        state_dict = MODELS.build(cfg.model).state_dict()
    checkpoint = Path('work_dirs/mask_rcnn_fasternet_s/epoch_12.pth')
    checkpoint.parent.mkdir(parents=True)
    meta = dict(dataset_meta=cfg.metainfo.to_dict())
    torch.save(dict(state_dict=state_dict, meta=meta), checkpoint)


# shell lines


def parser_of(tool: str):
    spec = importlib.util.spec_from_file_location(tool, REPO / 'tools' / tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.parse_args


def extras() -> set[str]:
    """Return the extras that setup.py offers."""
    found = re.search(r'extras_require=\{(.*?)\n    \}', (REPO / 'setup.py').read_text(), re.S).group(1)
    return set(re.findall(r"^ {8}'(\w+)':", found, re.M))


@pytest.mark.parametrize('line', COMMANDS)
def test_a_shell_line_is_understood(line, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')  # the tools set it
    words = shlex.split(line, comments=True)
    while words and re.match(r'\w+=', words[0]):
        del words[0]
    assert [word for word in words if word.startswith(('configs/', 'tests/')) and not (REPO / word).exists()] == []
    match words:
        case ['python', '-m', module, *_]:
            assert importlib.util.find_spec(f'{module}.__main__')
        case ['python', tool, *arguments]:
            parser_of(tool.removeprefix('tools/'))(arguments)
        case ['tools/dist_train.sh', config, processes, *options]:
            assert processes.isdecimal() and parser_of('train.py')([config, *options])
        case ['tools/dist_test.sh', config, checkpoint, processes, *options]:
            assert processes.isdecimal() and parser_of('test.py')([config, checkpoint, *options])
        case [script, *options] if script.startswith('tools/'):
            named = [word for word in options if word.startswith('--')]
            assert [option for option in named if option not in (REPO / script).read_text()] == []
        case ['pip', 'install', *packages]:
            named = re.findall(r'\w+', ''.join(re.findall(r'\[(.*?)\]', ' '.join(packages))))
            assert set(named) <= extras()
        case ['pre-commit', 'install']:
            assert (REPO / '.pre-commit-config.yaml').is_file()
        case ['ruff' | 'git', *_] | ['.', '.venv/bin/activate']:
            pass
        case _:
            pytest.fail(f'nobody checks this line: {line}')


def test_every_option_in_the_prose_is_one_of_a_tool(capsys):
    known = ''
    for tool in TOOLS:
        with pytest.raises(SystemExit):
            parser_of(tool)(['--help'])
        known += capsys.readouterr().out
    for script in (REPO / 'tools').glob('*.sh'):
        known += script.read_text()
    options = set(re.findall(r'`[^`\n]*?(--[a-z][\w-]+)[^`\n]*`', PROSE))
    assert len(options) > 5
    assert [option for option in sorted(options) if not re.search(rf'{option}\b', known)] == []


@pytest.mark.parametrize('script', ['quickstart.sh', 'run_tests.sh', 'dist_train.sh', 'dist_test.sh'])
def test_scripts_are_executable(script):
    assert os.access(REPO / 'tools' / script, os.X_OK)


def test_ci_runs_the_readmes_test_command():
    assert 'tools/run_tests.sh' in TEXTS['README.md']
    assert re.search(r'^[^#\n]*tools/run_tests\.sh(?! --)', (REPO / '.ci' / 'run').read_text(), re.M)


# names


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    return {re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in re.findall('^#+ (.*)', text, re.M)}


@pytest.mark.parametrize('page', TEXTS)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r'\]\((?!http)([^)]+)\)', TEXTS[page]):
        path, _, anchor = link.partition('#')
        target = (REPO / page).parent / path if path else REPO / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_file_and_folder_it_names_is_there():
    named = re.findall(r'`((?:tests|tools|configs|requirements|docs|fasternet_mm)/[\w/.]+)', PROSE)
    named = [path for path in named if '.mim' not in path]  # of an installed wheel
    assert len(named) > 4
    assert [path for path in named if not (REPO / path).exists()] == []


def test_every_name_in_the_package_is_there():
    named = set(re.findall(r'`(fasternet_mm(?:\.\w+)+)', PROSE))
    assert len(named) > 1
    assert [name for name in sorted(named) if pkgutil.resolve_name(name) is None] == []


@pytest.mark.parametrize('room', re.findall(r'^\| `fasternet_mm/(\w+)/` .*\|', TEXTS['CONTRIBUTING.md'], re.M))
def test_a_room_imports_what_it_may(room):
    (row,) = re.findall(rf'^\| `fasternet_mm/{room}/` .*\| (.*) \|$', TEXTS['CONTRIBUTING.md'], re.M)
    allowed = {'errors', 'files', 'version', room, *re.findall(r'\w+', row)}
    for path in (REPO / 'fasternet_mm' / room).rglob('*.py'):
        package = path.relative_to(REPO).parent.parts
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                home = [*package[: len(package) - node.level + 1], *(node.module or node.names[0].name).split('.')]
                assert home[1] in allowed, f'{path}:{node.lineno}'


def test_every_official_file_is_known():
    named = set(re.findall(r'(fasternet://[a-z]\w+)', '\n'.join(TEXTS.values())))
    assert len(named) > 2
    assert all(official_url(name).startswith('https://') for name in named)


# numbers and versions


def test_the_readme_fits_in_170_lines_and_starts_with_the_edits():
    lines = TEXTS['README.md'].splitlines()
    assert len(lines) <= 170
    assert lines.index(next(line for line in lines if '_delete_=True' in line)) < 50


def test_the_readmes_table_is_the_measured_report():
    report = json.loads((REPO / 'docs/results/cpu-amd-epyc/table4_100_report.json').read_text())
    models = {model['name'].replace('-', ''): model for model in report['models']}
    rows = re.findall(r'^\| \**([\w-]+)\** \| ([\d.]+) M \| (.*) \|.*\|$', TEXTS['README.md'], re.M)
    assert len(rows) == 6
    for name, parameters, numbers in rows:
        model = models[name.replace('-', '')]
        (measured,) = model['measurements']
        assert float(parameters) == round(model['parameters'] / 1e6, 1)
        want = [model['published']['box_ap'], model['published']['mask_ap'], measured['latency_ms']['p50'] / 1000]
        assert re.findall(r'[\d.]+', numbers) == [f'{want[0]:.1f}', f'{want[1]:.1f}', f'{want[2]:.2f}']


def test_the_changelog_starts_with_this_version():
    newest = re.search(r'^## \[([\w.]+)\] - \d{4}-\d\d-\d\d$', (REPO / 'CHANGELOG.md').read_text(), re.M)
    assert newest.group(1) == __version__


def test_deprecated_names_serve_for_a_release():
    sections = (REPO / 'CHANGELOG.md').read_text().split('\n## [')[1:]
    newest = next(section for section in sections if not section.startswith('Unreleased'))
    pairs = re.findall(r'^\| `(.*)` \| `(.*)` \|$', newest, re.M)
    assert newest.startswith(__version__) and pairs
    for old, new in pairs:
        assert pkgutil.resolve_name(old) is pkgutil.resolve_name(new)


def test_pre_commit_runs_the_pinned_ruff():
    config = (REPO / '.pre-commit-config.yaml').read_text()
    pins = (REPO / 'requirements' / 'tests.txt').read_text()
    assert re.findall(r'rev: v(.*)', config) == re.findall(r'^ruff==(.*)', pins, re.M)
