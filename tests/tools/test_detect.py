"""tools/detect.py: drawn pictures and videos that are whole, or one clear line."""

import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from tests.helpers import REPO, one_line
from tests.helpers.exported import ALONE, write_exported


@pytest.fixture
def file(tmp_path):
    pytest.importorskip('onnxruntime')
    return write_exported(tmp_path / 'model.onnx')


@pytest.fixture
def folder(tmp_path):
    """Three pictures, of which one is dark and one is no picture, and a video of twelve frames."""
    folder = tmp_path / 'in'
    folder.mkdir()
    cv2.imwrite(str(folder / 'a.png'), picture())
    cv2.imwrite(str(folder / 'dark.jpg'), 0 * picture())
    (folder / 'broken.jpg').write_bytes(b'hello')
    (folder / 'notes.txt').write_text('no picture')
    write_video(folder / 'film.avi', 12)
    return folder


def picture() -> np.ndarray:
    return np.full((120, 160, 3), 160, np.uint8)


def write_video(path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5, (160, 120))
    for _ in range(frames):
        writer.write(picture())
    writer.release()


def test_a_folder_of_pictures_and_a_video(run_tool, file, folder, tmp_path):
    out = tmp_path / 'out'
    done = run_tool('detect.py', file, folder, '--out', out, '--score-thr', 0.1, check=False)
    assert done.returncode == 1  # of the broken one
    assert f'{folder / "broken.jpg"} is no picture that OpenCV can read; skipped' in one_line(done)
    assert sorted(path.name for path in out.iterdir()) == ['a.png', 'dark.jpg', 'film.mp4']
    assert f'{out / "a.png"}: 1 square, 1 disc' in done.stdout and f'{out / "dark.jpg"}: nothing found' in done.stdout
    assert f'{out / "film.mp4"}: 12 square, 12 disc' in done.stdout
    drawn = cv2.imread(str(out / 'a.png'))
    assert drawn.shape == (120, 160, 3) and len(np.unique(drawn.reshape(-1, 3), axis=0)) > 4
    assert (drawn[70:110, 90:150] == 160).all()  # no mask, no box, no name
    assert not (drawn[65:85, 10:70] == 160).all(axis=2).any()  # the mask of the upper left
    film = cv2.VideoCapture(str(out / 'film.mp4'))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 12 and film.get(cv2.CAP_PROP_FPS) == 5


def test_only_scores_above_the_threshold(run_tool, tmp_path, folder):
    """The default is 0.5, or what the file was exported with."""
    pytest.importorskip('onnxruntime')
    file = write_exported(tmp_path / 'model.onnx', masks=False)
    done = run_tool('detect.py', file, folder / 'a.png', '--out', tmp_path / 'one')
    assert 'a.png: 1 square\n' in done.stdout
    file = write_exported(tmp_path / 'model.onnx', score_threshold=0.7)
    done = run_tool('detect.py', file, folder / 'a.png', '--out', tmp_path / 'two')
    assert 'a.png: nothing found' in done.stdout
    done = run_tool('detect.py', file, folder / 'a.png', '--out', tmp_path / 'three', '--score-thr', 0.6, check=False)
    assert 'the score threshold must be from 0.7' in one_line(done) and not (tmp_path / 'three').exists()


def test_openvino(run_tool, tmp_path, folder):
    pytest.importorskip('openvino')
    file = write_exported(tmp_path / 'model.xml')
    done = run_tool('detect.py', file, folder / 'a.png', '--out', tmp_path / 'out')
    assert 'instance segmentation, 2 classes, in openvino on cpu' in done.stdout


@pytest.mark.parametrize('size', [(8, 8), (20, 400), (400, 20), (1500, 2000)])
@pytest.mark.parametrize('masks', [True, False])
def test_pictures_of_any_size(run_tool, tmp_path, size, masks):
    pytest.importorskip('onnxruntime')
    file = write_exported(tmp_path / 'model.onnx', masks=masks)
    cv2.imwrite(str(tmp_path / 'x.png'), np.full((*size, 3), 200, np.uint8))
    run_tool('detect.py', file, tmp_path / 'x.png', '--out', tmp_path / 'out', '--score-thr', 0.1)
    assert cv2.imread(str(tmp_path / 'out' / 'x.png')).shape == (*size, 3)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere.jpg', '--out', 'out'], 'nowhere.jpg is not there'),
        (['in/notes.txt', '--out', 'out'], 'in/notes.txt is no picture or video (.jpg'),
        (['empty', '--out', 'out'], 'empty holds no pictures or videos (.jpg'),
        (['in', '--out', 'model.onnx'], '--out model.onnx is a file; name a folder'),
        (['in', '--out', 'model.onnx/out'], 'model.onnx/out: Not a directory'),
        (['in', '--out', 'in'], 'in/a.png exists; remove it or choose another --out'),
        (['in', 'in/../in/a.png', '--out', 'out'], 'two inputs would be drawn as out/a.png'),
        (['in/film.avi', 'film.mp4', '--out', 'out'], 'two inputs would be drawn as out/film.mp4'),
    ],
)
def test_one_clear_line_before_any_work(run_tool, file, folder, tmp_path, arguments, message):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'film.mp4').write_bytes(b'')
    done = run_tool('detect.py', file, *arguments, cwd=tmp_path, check=False)
    assert message in one_line(done)
    assert done.stdout.count('\n') == 0 and not (tmp_path / 'out').exists()


def test_a_file_that_is_no_model(run_tool, folder, tmp_path):
    pytest.importorskip('onnxruntime')
    done = run_tool('detect.py', folder / 'notes.txt', folder, '--out', tmp_path / 'out', check=False)
    assert 'notes.txt cannot be read by onnxruntime' in one_line(done)


def test_a_video_that_ends_too_soon(run_tool, file, tmp_path):
    write_video(tmp_path / 'film.avi', 40)
    whole = (tmp_path / 'film.avi').read_bytes()
    (tmp_path / 'film.avi').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'text.mp4').write_text('no video')
    films = [tmp_path / 'film.avi', tmp_path / 'text.mp4']
    done = run_tool('detect.py', file, *films, '--out', tmp_path / 'out', check=False)
    assert done.returncode == 1 and 'film.avi ends after' in done.stderr and 'of 40 frames; skipped' in done.stderr
    assert 'text.mp4 is no video that OpenCV can read; skipped' in done.stderr
    assert list((tmp_path / 'out').iterdir()) == []


# on its own


def started(tool, *arguments) -> subprocess.Popen:
    code = f"{ALONE}import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return subprocess.Popen(
        [sys.executable, '-c', code, str(tool), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize('place', ['tools', 'fasternet_mm/.mim/tools', 'anywhere'])
def test_it_runs_without_torch_from_a_checkout_a_wheel_and_a_folder(file, folder, tmp_path, place):
    tool = tmp_path / place / 'detect.py'
    tool.parent.mkdir(parents=True)
    tool.write_bytes((REPO / 'tools' / 'detect.py').read_bytes())
    beside = tool.parent if place == 'anywhere' else tmp_path / 'fasternet_mm' / 'deploy'
    beside.mkdir(parents=True, exist_ok=True)
    (beside / 'runtime.py').write_bytes((REPO / 'fasternet_mm' / 'deploy' / 'runtime.py').read_bytes())
    process = started(tool, file, folder / 'a.png', '--out', tmp_path / 'out')
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert 'a.png: 1 square' in stdout and (tmp_path / 'out' / 'a.png').exists()


def test_ctrl_c_leaves_nothing_half_done(file, tmp_path):
    write_video(tmp_path / 'film.avi', 3000)
    process = started(REPO / 'tools' / 'detect.py', file, tmp_path / 'film.avi', '--out', tmp_path / 'out')
    end = time.monotonic() + 60
    while not list(tmp_path.glob('out/*.partial.mp4')) and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stderr.strip().splitlines()[-1] == 'detect.py: interrupted'
    assert 'Traceback' not in stderr and list((tmp_path / 'out').iterdir()) == []
