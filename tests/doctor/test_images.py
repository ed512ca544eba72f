"""Image files: what is wrong with one is told by what mmcv would make of it, not by its header alone."""

from contextlib import suppress

import cv2
import mmcv
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from fasternet_mm.engine.checks.images import Decoder, examine


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """One picture of 48 x 32 pixels in several formats."""
    root = tmp_path_factory.mktemp('images')
    pixels = np.random.RandomState(0).randint(0, 255, (32, 48, 3), np.uint8)
    picture = Image.fromarray(pixels)
    for name in ('jpg', 'png', 'bmp', 'webp', 'tif', 'gif'):
        picture.save(root / f'whole.{name}')
    return root


@pytest.mark.parametrize('ending', ['jpg', 'png', 'bmp', 'webp', 'tif', 'gif'])
def test_a_whole_image_has_no_fault_and_its_size(folder, ending):
    file = examine(str(folder / f'whole.{ending}'))
    assert (file.fault, file.told, file.size) == ('', '', (48, 32)) and len(file.digest) == 16


def test_missing_and_empty(tmp_path):
    (tmp_path / 'empty.jpg').touch()
    (tmp_path / 'folder.jpg').mkdir()
    assert examine(str(tmp_path / 'none.jpg')).fault == examine(str(tmp_path / 'folder.jpg')).fault == 'missing'
    assert examine(str(tmp_path / 'empty.jpg')).fault == 'empty'


def test_a_cut_jpeg_is_what_opencv_makes_of_it(folder, tmp_path, monkeypatch):
    """Nothing since OpenCV 5, and before, an image whose rest is grey."""
    path = tmp_path / 'cut.jpg'
    path.write_bytes((folder / 'whole.jpg').read_bytes()[:-200])
    for pixels, fault in ((None, 'unreadable'), (np.zeros((32, 48, 3), np.uint8), 'damaged')):
        monkeypatch.setattr(mmcv, 'imfrombytes', lambda *args, pixels=pixels, **kwargs: pixels)
        file = examine(str(path))
        assert file.fault == fault and 'truncated' in file.told and file.size == (48, 32)


@pytest.mark.parametrize('content', [b'no image', b'\xff\xd8\xff\xe0', b'\x89PNG\r\n\x1a\n'])
def test_what_is_no_image_is_unreadable(tmp_path, content):
    path = tmp_path / 'bad.jpg'
    path.write_bytes(content)
    assert examine(str(path)).fault == 'unreadable'


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_image_that_stops_mmcv_is_never_fine(folder, tmp_path_factory, data):
    """Whatever byte is cut off or changed."""
    ending = data.draw(st.sampled_from(['jpg', 'png', 'bmp', 'webp']))
    content = bytearray((folder / f'whole.{ending}').read_bytes())
    content = content[: data.draw(st.integers(1, len(content)))]
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f'broken.{ending}'
    path.write_bytes(content)
    file = examine(str(path))
    pixels = None
    with suppress(cv2.error):  # a broken size can be too large for OpenCV
        pixels = mmcv.imread(str(path))
    if pixels is None:
        assert file.fault == 'unreadable'
    else:
        assert file.fault in ('', 'damaged') and file.size == pixels.shape[1::-1]


def turned(folder, path, orientation: int):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.open(folder / 'whole.bmp').save(path, exif=exif)
    return str(path)


def test_a_turned_image_has_the_size_that_mmcv_loads(folder, tmp_path):
    """The loader turns it by its EXIF orientation, unless color_type says otherwise."""
    path = turned(folder, tmp_path / 'turned.jpg', 6)
    file = examine(path)
    assert (file.size, file.stored_size, file.orientation) == ((32, 48), (48, 32), 6)
    assert file.size == mmcv.imread(path).shape[1::-1]
    assert examine(path, Decoder('color_ignore_orientation')).size == (48, 32)
    assert examine(path, Decoder('unchanged')).size == (48, 32)
    assert examine(turned(folder, tmp_path / 'over.jpg', 3)).size == (48, 32)
