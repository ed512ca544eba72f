"""What the README tells people to type."""

import re

import pytest

from tests.helpers import REPO

README = (REPO / 'README.md').read_text()
CODE = re.findall(r'```(\w+)\n(.*?)```', README, re.S)


def test_ten_lines_for_ones_own_classes_train_and_evaluate(tmp_path, run_tool, sample):
    (code,) = [text for language, text in CODE if language == 'python' and 'mask_head' in text]
    assert len(code.splitlines()) == 10
    code = code.replace("'./configs/mask_rcnn_fasternet_s.py'", repr(str(REPO / 'configs/mask_rcnn_fasternet_t0.py')))
    code = code.replace('data/sample', str(sample))
    (tmp_path / 'mine.py').write_text(code)
    small = [f'{split}_dataloader.{setting}' for split in ('train', 'val') for setting in
             ('num_workers=0', 'persistent_workers=False')]  # fmt: skip
    small += ['train_dataloader.dataset.pipeline.2.scale=(64,64)', 'val_dataloader.dataset.pipeline.1.scale=(64,64)']
    done = run_tool('train.py', tmp_path / 'mine.py', '--work-dir', tmp_path / 'work', '--cfg-options',
                    'model.backbone.init_cfg=None', 'train_cfg.max_epochs=1', *small)  # fmt: skip
    assert re.search(r'coco/bbox_mAP: [\d.]+.*coco/segm_mAP: [\d.]+', done.stdout)


def test_every_file_and_folder_it_names_is_there():
    links = re.findall(r'\]\((?!http)([^)]+)\)', README)
    named = re.findall(r'`((?:tests|tools|configs|requirements)/[\w/.]+)', README)
    assert len(links) > 4 and len(named) > 4
    assert [path for path in links + named if not (REPO / path).exists()] == []


@pytest.mark.parametrize('script', ['quickstart.sh', 'run_tests.sh', 'dist_train.sh', 'dist_test.sh'])
def test_scripts_are_executable(script):
    import os

    assert os.access(REPO / 'tools' / script, os.X_OK)


def test_ci_runs_the_readmes_test_command():
    assert 'tools/run_tests.sh' in README
    assert (REPO / '.ci' / 'run').read_text().splitlines()[-1] == 'exec tools/run_tests.sh'
