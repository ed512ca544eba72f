"""Checkpoint files that are damaged, and names of files that are none."""

import io
import tempfile
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.runner import CheckpointLoader

from fasternet_mm.checkpoint import require_source
from fasternet_mm.errors import CheckpointError, DamagedCheckpointError

from .line import saved


def bytes_of(content, checksums=True) -> bytes:
    buffer = io.BytesIO()
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(checksums)
    try:
        torch.save(content, buffer)
    finally:
        torch.serialization.set_crc32_options(before)
    return buffer.getvalue()


SMALL = {'state_dict': {'a.weight': torch.arange(12.0).view(3, 4), 'b': torch.arange(5)}, 'meta': {'epoch': 3}}
WHOLE = bytes_of(SMALL)


def is_small(content) -> bool:
    same = (torch.equal(content['state_dict'][name], tensor) for name, tensor in SMALL['state_dict'].items())
    return content['meta'] == SMALL['meta'] and all(same)


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, len(WHOLE) - 1), flip=st.integers(1, 255))
def test_a_flipped_byte_is_noticed_or_harmless(place, flip):
    damaged = bytearray(WHOLE)
    damaged[place] ^= flip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'flipped.pth')
        path.write_bytes(damaged)
        try:
            content = CheckpointLoader.load_checkpoint(str(path))
        except CheckpointError as error:
            assert 'flipped.pth' in str(error)
        else:
            assert is_small(content)


def test_every_byte_of_a_tensor_counts(tmp_path):
    start = WHOLE.index(SMALL['state_dict']['a.weight'].numpy().tobytes())
    for place in range(start, start + 48):
        damaged = bytearray(WHOLE)
        damaged[place] ^= 1
        (tmp_path / 'flipped.pth').write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r'flipped\.pth is damaged .*the checksum of archive/data/0 differs'):
            CheckpointLoader.load_checkpoint(str(tmp_path / 'flipped.pth'))


def test_files_without_checksums_load(tmp_path):
    (tmp_path / 'bare.pth').write_bytes(bytes_of(SMALL, checksums=False))
    assert is_small(CheckpointLoader.load_checkpoint(str(tmp_path / 'bare.pth')))


def test_too_little_memory_is_not_called_damage(tmp_path, monkeypatch):
    path = saved(tmp_path, SMALL)
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")):
        monkeypatch.setattr(torch, 'load', Mock(side_effect=error))
        with pytest.raises(CheckpointError, match=r'not enough memory to load .*given\.pth') as raised:
            CheckpointLoader.load_checkpoint(str(path))
        assert not isinstance(raised.value, DamagedCheckpointError)


SOURCES = {
    'foo://x.pth': 'foo:// is unknown; known are .*fasternet://, and the path of a file',
    'htttp://host/x.pth': r'did you mean http://host/x\.pth\?',
    'HTTPS://host/x.pth': r'did you mean https://host/x\.pth\?',
    'file:///data/my%20file.pth': r'file:// is unknown; give the path alone: /data/my file\.pth',
    'fasternets://fasternet_s': r'did you mean fasternet://fasternet_s\?',
    'fasternet://fasternt_s': r'none of the official weights: .*; did you mean fasternet://fasternet_s\?',
    'fasternet://mask_rcnn_fasternet_xl': r'did you mean fasternet://mask_rcnn_fasternet_l\?',
    'fasternet://': 'none of the official weights: fasternet_t0',
    'fasternet://fasternet_s#sha256=': 'ends in no SHA-256',
    'https://host/x.pth#sha256=abc': 'ends in no SHA-256: after #sha256= come 64',
    'https://host/': 'names no file',
    'https://host/..': 'names no file',
    'nowhere.pth': r'checkpoint not found: nowhere\.pth',
    'folder': "'folder' is a folder, not a checkpoint; name one of the files in it: epoch_1.pth",
    '': "'' is a folder",
    'empty.pth': r'empty\.pth is damaged or not a PyTorch checkpoint: it is empty',
}


ZOOS = {
    'torchvision://resnet5': r"torchvision://resnet5 is none .*; did you mean 'resnet\d+' or 'resnet\d+'\?",
    'open-mmlab://resnet50_cafe': "did you mean 'resnet50_caffe'",
    'openmmlab://': 'openmmlab:// is none of the weights that mmengine knows$',
    'mmcls://nothing': 'mmcls://nothing is none of',
}


@pytest.mark.parametrize('source', ZOOS)
def test_a_name_that_mmengine_does_not_know(source):
    with pytest.raises(CheckpointError, match=ZOOS[source]):
        require_source(source)


@pytest.mark.parametrize(
    'source', ['torchvision://resnet50', 'open-mmlab://detectron2/resnet50_caffe', 'mmcls://vgg11']
)
def test_a_name_that_mmengine_knows(source):
    require_source(source)


@pytest.mark.parametrize('find', [require_source, CheckpointLoader.load_checkpoint])
@pytest.mark.parametrize('source', SOURCES)
def test_a_source_that_is_none_is_named_before_anything_is_loaded(tmp_path, monkeypatch, source, find):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'epoch_1.pth').touch()
    (tmp_path / 'empty.pth').touch()
    with pytest.raises(CheckpointError, match=SOURCES[source]):
        find(source)
