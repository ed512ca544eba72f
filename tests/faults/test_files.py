"""A file or folder is there whole or not at all, over nobody else's, and its place is tried before long work."""

import os
import platform
import re
import subprocess
from pathlib import Path

import pytest
import torch

from fasternet_mm.checkpoint import convert_checkpoint
from fasternet_mm.datasets import generate_shapes
from fasternet_mm.errors import UserError
from fasternet_mm.files import AtomicLocalBackend, remove_leftovers, require_output
from tests.helpers import one_line
from tests.helpers.golden import official_state_dict

from .runs import full_disk

SMALL = dict(num_train=3, num_val=2, size=64)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


# the sample data set


def test_a_full_disk_leaves_nothing_of_a_sample_set(tmp_path, run_tool):
    options = ['--num-train', 3, '--num-val', 2, '--size', 64]
    with full_disk(3000):  # the first image is larger
        done = run_tool('make_sample.py', tmp_path / 'sample', *options, check=False)
    assert 'make_sample.py: error: File too large' in one_line(done)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_an_older_sample_set_as_it_is(tmp_path):
    before = content_of(generate_shapes(tmp_path / 'sample', **SMALL))
    with full_disk(3000), pytest.raises(OSError):
        generate_shapes(tmp_path / 'sample', **SMALL, seed=1)
    assert content_of(tmp_path / 'sample') == before
    after = content_of(generate_shapes(tmp_path / 'sample', **SMALL | dict(num_train=2), seed=1))
    assert after.keys() == before.keys() - {'train/000003.png'}
    assert [path.name for path in tmp_path.iterdir()] == ['sample']


@pytest.mark.parametrize(
    'name', ['annotations/instances_train.json', 'train/000001.png', 'train/000004.png', 'recipe.json', 'notes.txt']
)
def test_a_folder_with_a_users_file_is_left_alone(tmp_path, run_tool, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"precious": 1}')
    before = content_of(tmp_path)
    done = run_tool('make_sample.py', tmp_path, '--num-train', 3, '--num-val', 2, '--size', 64, check=False)
    line = one_line(done)
    assert f'{tmp_path} holds 1 files that are not of the sample data set ({name}); name another folder' in line
    assert content_of(tmp_path) == before


def test_a_users_file_in_our_own_folder_is_not_deleted(tmp_path):
    generate_shapes(tmp_path / 'sample', **SMALL)
    (tmp_path / 'sample' / 'train' / 'mine.png').touch()
    generate_shapes(tmp_path / 'sample', **SMALL)  # nothing to do
    with pytest.raises(UserError, match=r'\(train/mine.png\)'):
        generate_shapes(tmp_path / 'sample', **SMALL, seed=1)
    assert (tmp_path / 'sample' / 'train' / 'mine.png').exists()


@pytest.mark.parametrize('damage', [Path.unlink, lambda path: path.write_bytes(b'')], ids=['missing', 'empty'])
def test_a_set_that_is_no_longer_whole_is_drawn_again(tmp_path, damage):
    before = content_of(generate_shapes(tmp_path / 'sample', **SMALL))
    damage(tmp_path / 'sample' / 'val' / '000002.png')
    assert content_of(generate_shapes(tmp_path / 'sample', **SMALL)) == before


@pytest.mark.parametrize(
    ('option', 'value', 'least'),
    [('num-train', -1, 1), ('num-train', 0, 1), ('num-val', 0, 1), ('size', 31, 32), ('seed', -1, 0)],
)
def test_a_sample_set_that_cannot_be(tmp_path, run_tool, option, value, least):
    done = run_tool('make_sample.py', tmp_path / 'sample', f'--{option}', value, check=False)
    assert f'{option.replace("-", "_")} of the sample data set must be at least {least}, but is {value}' in one_line(
        done
    )
    assert not (tmp_path / 'sample').exists()


def test_a_sample_set_in_place_of_a_file_or_below_one(tmp_path, run_tool):
    (tmp_path / 'file').write_text('precious')
    for place in ('file', 'file/sample'):
        line = one_line(run_tool('make_sample.py', tmp_path / place, '--num-train', 1, check=False))
        assert 'make_sample.py: error: ' in line and str(tmp_path / 'file') in line
    assert content_of(tmp_path) == dict(file=b'precious')


# partial files


def test_leftovers_of_the_dead_go_and_all_else_stays(tmp_path):
    dead = subprocess.Popen(['true'])
    dead.wait()
    here, alive = platform.node(), os.getppid()
    gone = [f'epoch_1.pth.{here}.{dead.pid}.partial', f'epoch_2.pth.{here}.{os.getpid()}.partial']
    stay = [
        f'epoch_3.pth.{here}.{alive}.partial',  # another program's, at work
        f'epoch_1.pth.elsewhere.{dead.pid}.partial',  # another host's
        'epoch_1.pth.partial',  # a user's
        'epoch_1.pth',
        f'notes.{here}.txt.partial',
        f'notes.{here}.{10**20}.partial',
    ]
    for name in gone + stay:
        (tmp_path / name).touch()
    (tmp_path / f'sample.{here}.{dead.pid}.partial' / 'train').mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(stay)


def test_a_users_partial_file_survives(tmp_path):
    target = tmp_path / 'file.pth'
    (tmp_path / 'file.pth.partial').write_bytes(b'precious')
    AtomicLocalBackend().put(b'whole', target)
    with full_disk(3), pytest.raises(OSError, match=r"File too large: '.*/file.pth'"):
        AtomicLocalBackend().put(b'too long', target)
    assert content_of(tmp_path) == {'file.pth': b'whole', 'file.pth.partial': b'precious'}


def test_converting_on_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, run_tool):
    torch.save(official_state_dict('t0', 'classification', seed=0), tmp_path / 'official.pth')
    (tmp_path / 'mm.pth.partial').write_bytes(b'precious')
    with full_disk(100_000):
        done = run_tool(
            'convert_checkpoint.py', tmp_path / 'official.pth', tmp_path / 'mm.pth', '--to', 'mm', check=False
        )
    assert f'{tmp_path / "mm.pth"} cannot be written: ' in one_line(done) and 'File too large' in one_line(done)
    assert sorted(content_of(tmp_path)) == ['mm.pth.partial', 'official.pth']
    convert_checkpoint(str(tmp_path / 'official.pth'), str(tmp_path / 'mm.pth'), 'mm')
    assert (tmp_path / 'mm.pth.partial').read_bytes() == b'precious'


# places that are tried before long work

PLACES = {
    'a folder': ('folder', 'is a folder; name a file'),
    'below a file': ('file/out', 'is not writable (Not a directory: '),
    'nowhere to write': ('/proc/nowhere/out', 'is not writable (No such file or directory: '),
    'too long a name': ('x' * 250, 'is not writable (File name too long: '),
}


@pytest.fixture
def places(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').touch()
    (tmp_path / 'x.pth').write_bytes(b'x')  # what is tried first comes before the checkpoint is read
    return tmp_path


@pytest.mark.parametrize('place', PLACES)
def test_a_place_where_nothing_can_be_written(places, place):
    path, message = PLACES[place]
    with pytest.raises(UserError, match=f'^--out {places / path} {re.escape(message)}'):
        require_output(places / path, '--out')


def test_an_output_that_cannot_be_written_is_found_first(tiny_config, run_tool, places):
    config, checkpoint = tiny_config(), places / 'x.pth'
    out = places / 'file' / 'out'
    for tool, option, *arguments in (
        ('test.py', '--out', config, checkpoint, '--work-dir', places / 'work', '--out', f'{out}.pkl'),
        ('draw_detections.py', '--out', config, checkpoint, '--out', f'{out}.png'),
        ('convert_checkpoint.py', 'DST', checkpoint, '--to', 'mm', f'{out}.pth'),
        ('export.py', '--out', config, checkpoint, '--out', f'{out}.onnx'),
    ):
        line = one_line(run_tool(tool, *arguments, check=False))
        assert f'{tool}: error: {option} {out}.' in line and 'is not writable (Not a directory' in line


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_a_work_dir_that_cannot_be_written_is_found_first(tiny_config, run_tool, places, tool):
    arguments = [tiny_config(), *([places / 'x.pth'] if tool == 'test.py' else []), '--work-dir', '/proc/nowhere']
    line = one_line(run_tool(tool, *arguments, check=False))
    assert f'{tool}: error: the work dir /proc/nowhere is not writable' in line


def test_pictures_that_cannot_be_written_are_found_first(tiny_config, run_tool, places):
    arguments = [tiny_config(), places / 'x.pth', '--show-dir', places / 'file', '--work-dir', places / 'work']
    line = one_line(run_tool('test.py', *arguments, check=False))
    assert f'--show-dir {places / "file"} is not writable' in line


def test_a_place_that_is_tried_is_left_as_it_was(tmp_path):
    (tmp_path / '.writable').write_text('precious')
    require_output(tmp_path / 'out.pth', 'DST')
    assert content_of(tmp_path) == {'.writable': b'precious'}


# what is printed


def test_control_characters_never_reach_the_terminal(run_tool):
    line = one_line(run_tool('train.py', 'configs/\x1b[31mred\x07.py', check=False))
    assert line == r'train.py: error: config not found: configs/\x1b[31mred\x07.py'


def test_a_name_that_is_not_unicode(run_tool):
    line = one_line(run_tool('make_sample.py', os.fsdecode(b'data/sampl\xe9'), check=False))
    assert line == r'make_sample.py: error: data/sampl\udce9 is not valid UTF-8; rename the file or folder'


def test_sys_exit_in_a_config_is_an_error(run_tool, tmp_path):
    (tmp_path / 'ends.py').write_text('import sys\nsys.exit(0)\n')
    line = one_line(run_tool('train.py', tmp_path / 'ends.py', check=False))
    assert 'ends.py cannot be read: SystemExit: 0' in line
