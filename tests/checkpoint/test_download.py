"""Weights from a URL or by name: a real server on this machine, and no network."""

import hashlib
import http.server
import io
import threading

import pytest
import torch
from mmengine.runner import CheckpointLoader

from fasternet_mm import FasterNet
from fasternet_mm.checkpoint import checkpoint_sha256, official, official_url
from fasternet_mm.errors import CheckpointError
from tests.helpers.golden import TABLES, official_state_dict

WEIGHTS = official_state_dict('t0', 'detection_backbone', seed=0)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path; of those in `cut` only the first half arrives."""

    def __init__(self) -> None:
        self.files, self.cut, self.requests = {}, set(), []
        super().__init__(('127.0.0.1', 0), Handler)

    def url(self, name: str) -> str:
        return f'http://127.0.0.1:{self.server_port}/{name}'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.lstrip('/')
        self.server.requests.append(name)
        if name not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[name]
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        try:
            self.wfile.write(content[: len(content) // 2] if name in self.server.cut else content)
        except ConnectionError:  # the client only wanted the size
            pass

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server():
    with Server() as server:
        buffer = io.BytesIO()
        torch.save(WEIGHTS, buffer)
        server.files['t0.pth'] = buffer.getvalue()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    return tmp_path / 'hub' / 'checkpoints'


def initialised(checkpoint: str) -> FasterNet:
    model = FasterNet('t0', out_norm=True, init_cfg=dict(type='Pretrained', checkpoint=checkpoint))
    model.init_weights()
    return model


def test_a_url_is_downloaded_once_and_then_cached(server, cache):
    initialised(server.url('t0.pth'))
    asked = len(server.requests)
    again = initialised(server.url('t0.pth'))
    assert len(server.requests) == asked > 0
    assert all(torch.equal(value, WEIGHTS[key]) for key, value in again.state_dict().items())
    assert len(list(cache.iterdir())) == 1


def test_the_hash_of_whatever_a_checkpoint_was_read_from(server, cache, tmp_path):
    digest = hashlib.sha256(server.files['t0.pth']).hexdigest()
    url, file = server.url('t0.pth'), tmp_path / 't0.pth'
    assert checkpoint_sha256(None) is checkpoint_sha256(url) is checkpoint_sha256(str(file)) is None
    initialised(url)
    file.write_bytes(server.files['t0.pth'])
    assert checkpoint_sha256(url) == checkpoint_sha256(str(file)) == digest


def test_two_urls_that_end_alike_are_two_files(server, cache):
    for number in (1, 2):
        buffer = io.BytesIO()
        torch.save(dict(number=torch.tensor(number)), buffer)
        server.files[f'run{number}/epoch_12.pth'] = buffer.getvalue()
    for number in (1, 2, 1):
        assert CheckpointLoader.load_checkpoint(server.url(f'run{number}/epoch_12.pth'))['number'] == number


def test_a_name_that_holds_its_hash_is_the_name_in_the_cache(server, cache):
    server.files['resnet50-0676ba61.pth'] = server.files['t0.pth']
    CheckpointLoader.load_checkpoint(server.url('resnet50-0676ba61.pth'))
    assert [path.name for path in cache.iterdir()] == ['resnet50-0676ba61.pth']


def test_one_process_of_a_node_downloads(server, cache, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '1')
    with pytest.raises(CheckpointError, match='another process failed'):
        initialised(server.url('t0.pth'))
    assert server.requests == []


def test_a_download_that_ends_too_early_is_not_kept(server, cache):
    server.cut.add('t0.pth')
    size = len(server.files['t0.pth'])
    with pytest.raises(CheckpointError, match=f'could not download .*{size // 2} of {size} bytes arrived'):
        CheckpointLoader.load_checkpoint(server.url('t0.pth'))
    assert list(cache.iterdir()) == []


def test_a_page_instead_of_a_checkpoint_is_not_kept(server, cache):
    server.files['t0.pth'] = b'<html>sign in first</html>'
    with pytest.raises(CheckpointError, match='arrived damaged and was removed'):
        CheckpointLoader.load_checkpoint(server.url('t0.pth'))
    assert list(cache.iterdir()) == []


def test_a_known_hash_is_checked_at_every_load(server, cache):
    digest = hashlib.sha256(server.files['t0.pth']).hexdigest()
    url = server.url(f't0.pth#sha256={digest}')
    initialised(url)
    (cached,) = cache.iterdir()
    torch.save({**WEIGHTS, 'patch_embed.norm.bias': torch.zeros(40)}, cached)
    with pytest.raises(CheckpointError, match=rf'\.pth has the SHA-256 \w{{64}}, not {digest}; remove it'):
        initialised(url)


def test_a_download_of_another_hash_is_not_kept(server, cache):
    with pytest.raises(CheckpointError, match=rf'its SHA-256 is \w{{64}}, not {"0" * 64}'):
        initialised(server.url(f't0.pth#sha256={"0" * 64}'))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize('url', ['http://127.0.0.1:abc/x.pth', 'http://127.0.0.1:9/x.pth'])
def test_a_url_that_leads_nowhere(cache, url):
    with pytest.raises(CheckpointError, match=f'could not download {url}'):
        CheckpointLoader.load_checkpoint(url)


def test_a_missing_file_says_both_ways_out(server, cache):
    url = server.url('t1.pth')
    with pytest.raises(CheckpointError) as error:
        initialised(url)
    text = str(error.value)
    assert url in text and '404' in text
    assert str(cache / 't1.pth') in text and 'model.backbone.init_cfg.checkpoint=FILE' in text


def test_the_official_files_load_by_name(server, cache, monkeypatch):
    monkeypatch.setattr(official, '_RELEASE', server.url(''))
    server.files[TABLES['official_weights']['classification']['t0']] = server.files['t0.pth']
    model = initialised('fasternet://fasternet_t0')
    assert all(torch.equal(value, WEIGHTS[key]) for key, value in model.state_dict().items())


def test_every_published_file_has_a_name():
    release = 'https://github.com/JierunChen/FasterNet/releases/download/v1.0/'
    files = TABLES['official_weights']
    for arch, file in files['classification'].items():
        assert official_url(f'fasternet_{arch}') == release + file
    for arch, file in files['coco_mask_rcnn'].items():
        assert official_url(f'mask_rcnn_fasternet_{arch}') == release + file


def test_a_name_may_carry_a_hash():
    assert official_url('fasternet://fasternet_t0#sha256=abc') == official_url('fasternet_t0') + '#sha256=abc'


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(CheckpointError, match='fasternet://resnet50 is none of the official weights: fasternet_t0, '):
        CheckpointLoader.load_checkpoint('fasternet://resnet50')
