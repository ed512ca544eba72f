"""An exported detector outside of PyTorch: resized, pasted and refused as mmdet would, with three packages alone."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import FCNMaskHead, _do_paste_mask
from mmdet.registry import TRANSFORMS

from fasternet_mm.deploy.runtime import RUNTIMES, ExportedModel, ExportedModelError, paste_masks, read_picture
from tests.helpers import REPO
from tests.helpers.exported import ALONE, write_exported

PICTURE = np.full((40, 60, 3), 128, np.uint8)


@pytest.fixture(params=['onnxruntime', 'openvino', '.xml'])
def runtime(request) -> str:
    pytest.importorskip(request.param.replace('.xml', 'openvino'))
    return request.param


@pytest.fixture
def model(tmp_path, runtime) -> ExportedModel:
    if runtime == '.xml':
        return ExportedModel(write_exported(tmp_path / 'model.xml'))
    return ExportedModel(write_exported(tmp_path / 'model.onnx'), runtime)


def of(path, **metadata) -> ExportedModel:
    """An ExportedModel with such metadata, in whatever runtime there is."""
    if not any(map(importlib.util.find_spec, RUNTIMES)):
        pytest.skip('neither onnxruntime nor openvino is installed')
    return ExportedModel(write_exported(path / 'model.onnx', **metadata))


# what comes out


def test_boxes_and_masks_are_the_pictures(model, runtime):
    assert model.runtime == runtime.replace('.xml', 'openvino') and model.device == 'cpu'
    assert model.task == 'instance segmentation' and model.classes == ('disc', 'square') and model.shape is None
    assert model.metadata['resize'] == dict(scale=[133, 80], keep_ratio=True) and model.metadata['config'] == 'x.py'
    found = model(PICTURE)
    np.testing.assert_allclose(found.boxes, [[0, 0, 60, 40], [15, 10, 45, 20]], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [0.5, 0.25])
    assert found.labels.tolist() == [1, 0] and found.names == ('square', 'disc') and len(found) == 2
    assert [found.boxes.dtype, found.scores.dtype, found.labels.dtype, found.masks.dtype] == [
        np.float32, np.float32, np.int64, bool
    ]  # fmt: skip
    want = np.zeros((2, 40, 60), bool)
    want[0, :30, :30] = want[1, 10:20, 15:45] = True
    assert (found.masks == want).all()


def test_a_higher_threshold(model):
    found = model(PICTURE, 0.25)  # above it, as in mmdet
    assert found.scores.tolist() == [0.5] and found.names == ('square',) and found.masks.shape == (1, 40, 60)
    assert len(model(PICTURE, 0.05)) == 2
    for wrong in (0.04, float('nan'), 1.5):
        with pytest.raises(ExportedModelError, match='must be from 0.05, with which the file was exported, to 1'):
            model(PICTURE, wrong)


def test_nothing_in_the_picture(model):
    found = model(np.zeros_like(PICTURE))
    assert found.boxes.shape == (0, 4) and found.masks.shape == (0, 40, 60) and found.names == ()


def test_a_detector_without_masks(tmp_path, runtime):
    file = write_exported(tmp_path / f'model{runtime if runtime == ".xml" else ".onnx"}', masks=False)
    found = ExportedModel(file, None if runtime == '.xml' else runtime, threads=1)(PICTURE)
    assert found.masks is None and len(found.boxes) == 2


def test_a_box_beyond_the_picture_is_clipped_after_its_mask_was_pasted(tmp_path):
    model = of(tmp_path, shape=[64, 64])  # a third of it is padding
    found = model(PICTURE)
    np.testing.assert_allclose(found.boxes[0], [0, 0, 60, 40])
    assert found.masks[0, :, :30].all()  # three quarters of the uncut box's 60 rows are more than 40
    assert not found.masks[0, :, 30:].any()
    assert found.masks[1].sum() == 30 * 15


# as mmdet prepares it


SIDES = st.integers(1, 300)


@settings(deadline=None, max_examples=40)
@given(height=SIDES, width=SIDES, data=st.data())
def test_resized_and_padded_as_mmdets_pipeline_does(models, height, width, data):
    name = data.draw(st.sampled_from(sorted(models)))
    model, resize, size = models[name]
    pipeline = [dict(type='Resize', **resize)] if resize else []
    pipeline += [dict(type='Pad', size=size, pad_val=dict(img=(114, 110, 100)))] if size else []
    picture = np.random.default_rng(height * 301 + width).integers(0, 256, (height, width, 3), np.uint8)
    if resize and resize['keep_ratio']:
        assume(min(mmcv.rescale_size((width, height), resize['scale'])) > 0)  # which OpenCV refuses
    results = dict(img=picture, img_shape=(height, width), scale_factor=(1.0, 1.0))
    for transform in pipeline:
        results = TRANSFORMS.build(transform)(results)
    image, factors = model.prepare(picture)
    assert image.dtype == np.uint8 and np.array_equal(image, results['img'][None])
    assert factors == results['scale_factor']


@pytest.fixture(scope='module')
def models(tmp_path_factory) -> dict:
    made = {}
    for number, (scale, keep_ratio, size) in enumerate(
        [((133, 80), True, None), ((64, 96), True, None), ((64, 48), False, None), ((96, 96), True, (96, 96)),
         ((64, 48), True, (80, 60)), (None, None, None), (None, None, (100, 120))]
    ):  # fmt: skip
        resize = dict(scale=scale, keep_ratio=keep_ratio) if scale else None
        pad = dict(size=size, value=[114, 110, 100])
        folder = tmp_path_factory.mktemp('models')
        made[number] = of(folder, resize=resize, pad=pad), resize, size
    return made


@settings(deadline=None, max_examples=40)
@given(height=SIDES, width=SIDES)
def test_a_file_of_fixed_size_takes_any_picture(fixed, height, width):
    picture = np.random.default_rng(height * 301 + width).integers(0, 256, (height, width, 3), np.uint8)
    scale = min(96 / width, 64 / height)
    assume(min(width, height) * scale >= 0.5)
    want = mmcv.imrescale(picture, scale)
    assert want.shape[0] == 64 or want.shape[1] == 96
    image, factors = fixed.prepare(picture)
    assert np.array_equal(image[0], mmcv.impad(want, shape=(64, 96), pad_val=(1, 2, 3)))
    assert factors == (want.shape[1] / width, want.shape[0] / height)


@pytest.fixture(scope='module')
def fixed(tmp_path_factory) -> ExportedModel:
    return of(tmp_path_factory.mktemp('fixed'), shape=[64, 96], pad=dict(size=None, value=[1, 2, 3]))


def test_a_file_of_fixed_size_that_stretches(tmp_path):
    model = of(tmp_path, shape=[64, 96], resize=dict(scale=[96, 64], keep_ratio=False))
    image, factors = model.prepare(PICTURE)
    assert image.shape == (1, 64, 96, 3) and factors == (1.6, 1.6)


@pytest.mark.parametrize('size', [(1, 5000), (5000, 1)])
def test_a_thread_of_a_picture_keeps_a_pixel(tmp_path, size):
    assert of(tmp_path).prepare(np.zeros((*size, 3), np.uint8))[0].size == 133 * 3


# as mmdet pastes it


def mmdet_masks(logits: np.ndarray, boxes: np.ndarray, factors: tuple, size: tuple, threshold: float) -> np.ndarray:
    return FCNMaskHead._predict_by_feat_single(
        SimpleNamespace(class_agnostic=True), torch.from_numpy(logits)[:, None], torch.from_numpy(boxes.copy()),
        torch.zeros(len(boxes), dtype=torch.long), dict(scale_factor=factors, ori_shape=size),
        SimpleNamespace(mask_thr_binary=threshold), rescale=True,
    ).numpy()  # fmt: skip


def some_boxes(rng, size: tuple[int, int], kind: str) -> np.ndarray:
    """Eight boxes that touch a picture of H, W; mmdet itself fails on boxes that do not."""
    sides = np.array(size[::-1], np.float32)
    extent = dict(tiny=0.02, usual=0.5, huge=20)[kind.removesuffix(' of whole pixels').removesuffix(' without area')]
    centre = rng.uniform(0, 1, (8, 2)) * sides
    half = rng.uniform(0, extent / 2, (8, 2)) * sides
    boxes = np.concatenate([centre - half, centre + half], 1).astype(np.float32)
    if kind.endswith('whole pixels'):
        boxes = (boxes * 2).round() / 2
    if kind.endswith('without area'):
        boxes[::2, 0::2], boxes[1::4, 1::2] = centre[::2, :1], centre[1::4, 1:]
    return boxes


KINDS = [f'{extent}{how}' for extent in ('tiny', 'usual', 'huge') for how in ('', ' of whole pixels', ' without area')]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    kind=st.sampled_from(KINDS),
    cells=st.sampled_from([(28, 28), (14, 14), (7, 20), (1, 1)]),
    threshold=st.sampled_from([0.5, 0.3]),
)
def test_masks_are_pasted_as_mmdet_does(seed, size, kind, cells, threshold):
    rng = np.random.default_rng(seed)
    boxes, logits = some_boxes(rng, size, kind), rng.normal(0, 3, (8, *cells)).astype(np.float32)
    got = paste_masks(torch.from_numpy(logits).sigmoid().numpy(), boxes, size, threshold)
    want = mmdet_masks(logits, boxes, (1, 1), size, threshold)
    if (got != want).any():  # only where rounding decides
        masks = torch.from_numpy(logits)[:, None].sigmoid()
        exact, _ = _do_paste_mask(masks, torch.from_numpy(boxes), *size, skip_empty=False)
        assert np.abs(exact.numpy() - threshold)[got != want].max() < 1e-4


def test_masks_of_a_larger_picture_by_way_of_the_boxes_of_the_input(tmp_path):
    rng, size, factors = np.random.default_rng(0), (331, 517), (0.61, 0.59)
    boxes = np.concatenate([some_boxes(rng, (195, 315), kind) for kind in KINDS * 2])
    logits = rng.normal(0, 3, (len(boxes), 28, 28)).astype(np.float32)
    raw = dict(boxes=boxes, scores=np.linspace(1, 0.1, len(boxes), dtype=np.float32),
               labels=np.zeros(len(boxes), int), masks=torch.from_numpy(logits).sigmoid().numpy())  # fmt: skip
    found = of(tmp_path).finish(raw, factors, size)
    want = mmdet_masks(logits, boxes, factors, size, 0.5)
    assert (found.masks != want).sum() <= 1e-6 * want.size and want.sum() > 1e6
    assert found.boxes.min() >= 0 and (found.boxes <= (517, 331) * 2).all()


def test_a_box_outside_of_the_picture_has_an_empty_mask():
    boxes = np.float32([[-30, -30, -20, -20], [100, 5, 120, 15], [5, 100, 15, 120]])
    assert not paste_masks(np.ones((3, 28, 28), np.float32), boxes, (40, 60), 0.5).any()


# errors


@pytest.mark.parametrize(
    'picture', [None, PICTURE[..., 0], PICTURE / 255, PICTURE[:0], np.zeros((4, 4, 4), np.uint8)],
    ids=['none', 'grey', 'float', 'empty', 'four channels'],
)  # fmt: skip
def test_what_is_no_picture(tmp_path, picture):
    with pytest.raises(ExportedModelError, match=r'a picture must be a uint8 array of shape \(H, W, 3\)'):
        of(tmp_path)(picture)


def test_a_file_that_is_no_picture(tmp_path):
    model = of(tmp_path)
    for content in (b'', b'hello'):
        (tmp_path / 'x.png').write_bytes(content)
        with pytest.raises(ExportedModelError, match='x.png is no picture that OpenCV can read'):
            model(tmp_path / 'x.png')
    with pytest.raises(ExportedModelError, match='nowhere.png cannot be read: No such file'):
        model(str(tmp_path / 'nowhere.png'))


def test_a_picture_from_a_file_is_mmdets(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'ü.jpg'), picture)
    results = TRANSFORMS.build(dict(type='LoadImageFromFile'))(dict(img_path=str(tmp_path / 'ü.jpg')))
    assert np.array_equal(read_picture(tmp_path / 'ü.jpg'), results['img'])


@pytest.mark.parametrize('content', [b'', b'hello', None], ids=['empty', 'text', 'half'])
def test_a_file_that_is_no_model(tmp_path, runtime, content):
    file = write_exported(tmp_path / f'model{runtime if runtime == ".xml" else ".onnx"}')
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if content is None else content)
    with pytest.raises(ExportedModelError, match=f'{file.name} cannot be read by '):
        ExportedModel(file, None if runtime == '.xml' else runtime)


def test_an_xml_without_its_bin(tmp_path):
    pytest.importorskip('openvino')
    file = write_exported(tmp_path / 'model.xml')
    (tmp_path / 'model.bin').unlink()
    with pytest.raises(ExportedModelError, match='model.xml cannot be read by openvino: .*model.bin is not there'):
        ExportedModel(file)
    with pytest.raises(ExportedModelError, match='onnxruntime reads .onnx alone'):
        ExportedModel(file, 'onnxruntime')


def test_files_of_another_kind(tmp_path):
    with pytest.raises(ExportedModelError, match='lacks score_threshold, pad; write a whole detector with tools/exp'):
        of(tmp_path, drop=('score_threshold', 'pad'))
    with pytest.raises(ExportedModelError, match='is not from fasternet_mm, with the outputs boxes, scores, labels, m'):
        of(tmp_path, drop=('task', 'producer'))
    onnx = pytest.importorskip('onnx')
    kinds = dict(c2='a backbone', p2='a backbone with its neck', logits='a classifier', x='of an unknown kind')
    for name, kind in kinds.items():
        graph = f'older (float[N,3,H,W] images) => (float[N,3,H,W] {name}) {{ {name} = Neg (images) }}'
        older = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {graph}')
        older.metadata_props.add(key='producer', value='fasternet_mm 0.2.0')
        onnx.save(older, tmp_path / 'older.onnx')
        with pytest.raises(ExportedModelError, match=f'older.onnx is {kind}, with the outputs {name}; write a whole'):
            ExportedModel(tmp_path / 'older.onnx')


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_settings_that_cannot_be(tmp_path, runtime, monkeypatch):
    pytest.importorskip(runtime)
    file = write_exported(tmp_path / 'model.onnx')
    for wrong, message in [
        (dict(runtime='tensorrt'), "runtime must be one of onnxruntime, openvino, but is 'tensorrt'"),
        (dict(device='tpu'), "device must be one of cpu, cuda, but is 'tpu'"),
        (dict(precision='int4'), "precision must be one of fp32, bf16, but is 'int4'"),
        (dict(threads=0), 'threads must be at least 1, but is 0'),
    ]:
        with pytest.raises(ExportedModelError, match=message):
            ExportedModel(file, **dict(runtime=runtime) | wrong)
    with pytest.raises(ExportedModelError, match='nowhere.onnx is not there'):
        ExportedModel(tmp_path / 'nowhere.onnx', runtime)
    assert issubclass(ExportedModelError, ValueError)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: 'there' if name == runtime else None)
    assert ExportedModel(file).runtime == runtime
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ExportedModelError, match=f'{runtime} is not installed: pip install {runtime}'):
        ExportedModel(file, runtime)


def test_bf16_is_never_fp32_in_secret(tmp_path, monkeypatch):
    openvino = pytest.importorskip('openvino')
    file = write_exported(tmp_path / 'model.onnx')
    if 'BF16' in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        assert len(ExportedModel(file, 'openvino', precision='bf16')(PICTURE)) == 2

    class Old(openvino.Core):
        def get_property(self, device, name):
            return ['FP32', 'INT8']

    monkeypatch.setattr('fasternet_mm.deploy.runtime.openvino_core', Old)
    with pytest.raises(ExportedModelError, match='this processor has no bf16 .*; it has FP32, INT8'):
        ExportedModel(file, 'openvino', precision='bf16')
    with pytest.raises(ExportedModelError, match='device cuda is for onnxruntime'):
        ExportedModel(file, 'openvino', device='cuda')


def test_what_onnxruntime_cannot_do(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    file = write_exported(tmp_path / 'model.onnx')
    with pytest.raises(ExportedModelError, match='precision bf16 is for openvino'):
        ExportedModel(file, 'onnxruntime', precision='bf16')
    if 'CUDAExecutionProvider' not in onnxruntime.get_available_providers():
        with pytest.raises(ExportedModelError, match='this onnxruntime has no CUDA: pip install onnxruntime-gpu'):
            ExportedModel(file, 'onnxruntime', device='cuda')


# on its own


CODE = """
import importlib.util, json
spec = importlib.util.spec_from_file_location('runtime', sys.argv[1])
runtime = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runtime)
found = runtime.ExportedModel(*sys.argv[2:4])(sys.argv[4])
print(json.dumps([found.boxes.tolist(), found.names, int(found.masks.sum())]))
"""


def test_it_runs_where_nothing_else_is_installed(tmp_path, runtime):
    file = write_exported(tmp_path / f'model{runtime if runtime == ".xml" else ".onnx"}')
    cv2.imwrite(str(tmp_path / 'picture.png'), PICTURE)
    runtime = runtime.replace('.xml', 'openvino')
    (other,) = set(RUNTIMES) - {runtime}
    arguments = [REPO / 'fasternet_mm' / 'deploy' / 'runtime.py', file, runtime, tmp_path / 'picture.png']
    command = [sys.executable, '-c', f'{ALONE}Refuse.packages.append({other!r}){CODE}', *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    boxes, names, pixels = json.loads(done.stdout)
    assert np.allclose(boxes[0], [0, 0, 60, 40]) and names == ['square', 'disc'] and pixels == 30 * 30 + 10 * 30
