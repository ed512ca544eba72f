"""Maps over pictures: they lie where the evidence is, are of the score that they claim, and leave the model alone."""

import copy
from dataclasses import replace
from functools import cache
from importlib import import_module

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from fasternet_mm.deploy import switch_to_deploy
from fasternet_mm.deploy.detector.compare import batch_of
from fasternet_mm.errors import DataError, UserError
from fasternet_mm.study.features import features, layers_of, read_picture
from fasternet_mm.study.images import Preprocessing
from fasternet_mm.study.maps import METHODS, geometry, heat, layout, over_picture, tapped
from fasternet_mm.study.scores import detect
from fasternet_mm.study.subject import Subject

from ..helpers.detectors import finding, noise

GRADIENTS = [method for method in METHODS if METHODS[method]]
LOWEST = 0.6  # score of a detection
RED, GREEN, BLUE = (slice(4, 20), slice(8, 24)), (slice(40, 60), slice(36, 52)), (slice(10, 26), slice(44, 60))


@pytest.fixture
def colours() -> Subject:
    """A classifier whose evidence for 'red' is red pixels, and for 'green' green ones."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True), nn.AvgPool2d(4), nn.Flatten(2))
    model.append(Mean()).append(nn.Linear(3, 2, bias=False))
    nn.init.zeros_(model[0].bias)
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 3, 3) / 9)
        model[5].weight.copy_(torch.eye(3)[:2] * 40)
    how = Preprocessing(size=64, shorter=64, mean=(0, 0, 0), std=(255, 255, 255))
    return Subject('colours', model.eval(), how, model, classes=['red', 'green'])


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(2)


@pytest.fixture
def picture(tmp_path):
    """A dark picture with a red, a larger green and a bright blue square."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[RED], image[GREEN], image[BLUE] = (0, 0, 200), (0, 200, 0), (250, 0, 0)
    cv2.imwrite(str(tmp_path / 'squares.png'), image)
    return tmp_path / 'squares.png'


def share(found: np.ndarray, place: tuple[slice, slice], margin: int = 4) -> float:
    """How much of a map lies in a place or `margin` pixels about it."""
    around = tuple(slice(each.start - margin, each.stop + margin) for each in place)
    return float(found[around].sum() / found.sum())


def maps(subject, picture, out, monkeypatch, **options) -> list[np.ndarray]:
    """The maps at the size of the picture, as they are drawn."""
    seen = []
    module = import_module('fasternet_mm.study.features')  # the package has a function of this name
    monkeypatch.setattr(module, 'overlay', lambda picture, found, visible: seen.append(found) or picture)
    features(subject, [picture], out, **options)
    return seen


@pytest.mark.parametrize('method', GRADIENTS)
@pytest.mark.parametrize('layer', ['0', '1', '2'])
def test_a_class_is_seen_where_its_evidence_is(colours, picture, tmp_path, monkeypatch, method, layer):
    pytest.importorskip('pytorch_grad_cam')
    for name, place in dict(red=RED, green=GREEN).items():
        (found,) = maps(colours, picture, tmp_path, monkeypatch, layers=[layer], methods=[method], wanted=name)
        assert found.shape == (64, 64)
        assert share(found, place) > 0.95
    (best,) = maps(colours, picture, tmp_path, monkeypatch, layers=[layer], methods=[method])
    np.testing.assert_array_equal(best, found)  # the larger square is the best class


@pytest.mark.parametrize('method', ['activation', 'eigencam'])
def test_without_gradients_all_that_stands_out_is_seen(colours, picture, tmp_path, monkeypatch, method):
    (found,) = maps(colours, picture, tmp_path, monkeypatch, layers=['2'], methods=[method])
    assert sum(share(found, place) for place in (RED, GREEN, BLUE)) > 0.9
    assert share(found, BLUE) > 0.2  # which is evidence of no class


def test_a_layer_is_seen_before_what_writes_over_it(colours):
    """The ReLU after the convolution works in place."""
    image = torch.randn(1, 3, 16, 16, requires_grad=True)
    with tapped(colours.model, ['0', '1']) as seen:
        colours.model(image)
    (before,), (after,) = seen['0'], seen['1']
    assert before.min() < 0
    torch.testing.assert_close(before.relu(), after)
    for gradient in torch.autograd.grad(after.square().sum(), [before, after]):
        torch.testing.assert_close(gradient, 2 * after)


@pytest.mark.parametrize('method', ['gradcam', 'hirescam', 'layercam'])
def test_formulas_are_those_of_the_papers(method):
    pytest.importorskip('pytorch_grad_cam')
    activation, gradient = (np.random.RandomState(seed).randn(5, 4, 6) for seed in (0, 1))
    weights = dict(
        gradcam=gradient.mean((1, 2), keepdims=True), hirescam=gradient, layercam=np.maximum(gradient, 0)
    )[method]  # fmt: skip
    want = np.maximum((weights * activation).sum(0), 0)
    np.testing.assert_allclose(heat(method, activation, gradient), want, rtol=1e-6)


def test_eigencam_is_the_first_principal_component():
    rng = np.random.RandomState(0)
    pattern, channels = np.abs(rng.randn(6, 8)) ** 3, rng.randn(7)
    found = heat('eigencam', channels[:, None, None] * pattern + 5 + 0.01 * rng.randn(7, 6, 8), None)
    assert np.corrcoef(found.ravel(), np.maximum(pattern - pattern.mean(), 0).ravel())[0, 1] > 0.999


# detectors


def input_of(model, image: np.ndarray) -> tuple[torch.Tensor, list]:
    data = model.data_preprocessor(batch_of(image), False)
    return data['inputs'], data['data_samples']


@cache
def detector(name: str) -> tuple[nn.Module, Config]:
    """One that finds something, for all tests."""
    return finding(name)


@pytest.mark.parametrize('name', ['Mask R-CNN', 'Cascade R-CNN', 'RetinaNet', 'FCOS', 'ATSS', 'RTMDet'])
def test_attributed_scores_are_those_that_mmdet_predicts(name):
    model, _ = detector(name)
    with torch.no_grad():
        inputs, samples = input_of(model, noise((128, 160)))
        want = model.predict(inputs, samples)[0].pred_instances
        want = want[want.scores >= want.scores[9]]
    scores, labels, boxes = detect(model, inputs.requires_grad_(), samples, float(want.scores.min()) - 1e-6, True)
    torch.testing.assert_close(scores.detach(), want.scores)
    torch.testing.assert_close(labels, want.labels)
    torch.testing.assert_close(boxes, want.bboxes, rtol=0, atol=1e-3)
    (gradient,) = torch.autograd.grad(scores[0], inputs)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize('name', ['Faster R-CNN', 'RetinaNet', 'FCOS', 'ATSS', 'RTMDet'])
def test_gradients_are_those_of_a_detections_score(name):
    """Against a difference: a step along the gradient changes the score as much as the gradient says."""
    model = copy.deepcopy(detector(name)[0]).double()
    with torch.no_grad():
        inputs, samples = input_of(model, noise((128, 160)))
        inputs = inputs.double()
        if name == 'Faster R-CNN':  # gradients do not flow through the places of proposals
            samples[0].proposals = model.rpn_head.predict(model.extract_feat(inputs), samples, rescale=False)[0]
    inputs.requires_grad_()
    with tapped(model, ['backbone']) as seen:
        scores, *_ = detect(model, inputs, samples, 0, True)
    (gradient,) = torch.autograd.grad(scores[0], inputs)
    step = 1e-4 * gradient / gradient.norm()
    with torch.no_grad():
        up, down = (detect(model, inputs + sign * step, samples, 0, False)[0][0] for sign in (1, -1))
    assert float(up - down) == pytest.approx(float(2e-4 * gradient.norm()), rel=1e-3)
    assert len(seen['backbone']) == (3 if name == 'RTMDet' else 4)


@pytest.fixture
def mask_rcnn(tmp_path):
    """A tiny Mask R-CNN with its config, and two pictures of different size."""
    model, cfg = copy.deepcopy(detector('Mask R-CNN'))
    for number, size in enumerate([(96, 128), (150, 100)]):
        cv2.imwrite(str(tmp_path / f'{number}.png'), noise(size, number)[0])
    cfg.test_dataloader.dataset.pipeline[1].scale = (128, 96)
    classes = [f'c{number}' for number in range(80)]
    subject = Subject('mask_rcnn', model, Preprocessing(), model.extract_feat, cfg=cfg, classes=classes)
    return subject, [tmp_path / '0.png', tmp_path / '1.png']


def test_a_detector_and_its_pictures(mask_rcnn, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    subject, pictures = mask_rcnn
    model = subject.model
    state = {name: (value.clone(), value.requires_grad) for name, value in model.state_dict(keep_vars=True).items()}
    modes = [module.training for module in model.modules()]
    names = ['neck', 'backbone[3]', 'backbone.stages.1']
    found = features(subject, pictures, tmp_path / 'out', names, ['activation', 'layercam'], score_threshold=LOWEST)
    for picture in found.pictures:
        size = cv2.imread(str(tmp_path / picture.picture)).shape[:2]
        assert picture.size == list(size)
        levels = [f'neck[{level}]' for level in range(5)]
        assert [each.layer for each in picture.maps] == 2 * [*levels, 'backbone[3]', 'backbone.stages.1']
        for each in picture.maps:
            assert each.shape[0] == {'b': 64 if '[3]' in each.layer else 16, 'n': 256}[each.layer[0]]
            assert 0 < each.area <= 1
            if each.file:
                assert cv2.imread(str(tmp_path / 'out' / each.file)).shape[:2] == size
                assert 0 <= each.inside <= 1
        scores = [each.score for each in picture.found]
        assert scores == sorted(scores, reverse=True) and scores[-1] >= LOWEST
        assert [each.target for each in picture.found] == [True] + [False] * (len(scores) - 1)
        assert (tmp_path / 'out' / f'{picture.picture[0]}_features.png').is_file()  # all maps of the picture in one
    # a box is pooled from one level of the pyramid: no other has a gradient, and RPN's fifth level has none at all
    shares = [each.inside for each in found.pictures[0].maps if each.method == 'layercam'][:5]
    assert sum(each is not None for each in shares) == 1
    # nothing stays behind
    assert not any(module._forward_hooks for module in model.modules())
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict(keep_vars=True).items():
        assert value.grad is None and value.requires_grad == state[name][1] and torch.equal(value, state[name][0])


def test_a_class_of_detections(mask_rcnn, tmp_path):
    pytest.importorskip('pytorch_grad_cam')
    subject, pictures = mask_rcnn
    seen = features(subject, pictures[:1], tmp_path, methods=['activation'], score_threshold=LOWEST).pictures[0].found
    name = max({each.name for each in seen}, key=[each.name for each in seen].count)
    (found,) = features(subject, pictures[:1], tmp_path, None, ['gradcam'], name, LOWEST).pictures
    assert [each.target for each in found.found] == [each.name == name for each in seen]
    assert found.maps and found.note is None
    absent = next(each for each in subject.classes if each not in {each.name for each in seen})
    (found,) = features(subject, pictures[:1], tmp_path, None, ['activation', 'gradcam'], absent, LOWEST).pictures
    assert {each.method for each in found.maps} == {'activation'}
    assert f'no {absent} is detected' in found.note


def test_a_detector_without_such_gradients_has_maps_of_activations(mask_rcnn, tmp_path, monkeypatch):
    pytest.importorskip('pytorch_grad_cam')
    _, pictures = mask_rcnn
    model, cfg = copy.deepcopy(detector('RetinaNet'))
    cfg.test_dataloader.dataset.pipeline[1].scale = (128, 96)
    subject = Subject('retinanet', model, Preprocessing(), model.extract_feat, cfg=cfg)

    class OwnHead(type(model.bbox_head)):
        def predict_by_feat(self, *args, **settings):
            return super().predict_by_feat(*args, **settings)

    monkeypatch.setattr(model.bbox_head, '__class__', OwnHead)
    assert features(subject, pictures[:1], tmp_path, methods=['eigencam'], score_threshold=LOWEST).pictures[0].maps
    with pytest.raises(UserError, match='no gradient flows from the scores of RetinaNet with OwnHead.*eigencam'):
        features(subject, pictures, tmp_path, methods=['layercam'], score_threshold=LOWEST)


def test_the_deploy_form_sees_the_same(mask_rcnn, tmp_path, monkeypatch):
    pytest.importorskip('pytorch_grad_cam')
    subject, pictures = mask_rcnn
    options = dict(layers=['neck[0]', 'neck[1]'], methods=['activation', 'layercam'], score_threshold=LOWEST)
    want = maps(subject, pictures[0], tmp_path, monkeypatch, **options)
    deployed = replace(subject, model=switch_to_deploy(copy.deepcopy(subject.model)))
    found = maps(deployed, pictures[0], tmp_path, monkeypatch, **options)
    assert len(found) == len(want) == 3  # one level has no gradient
    for got, expected in zip(found, want):
        np.testing.assert_allclose(got, expected, atol=1e-3)


# layers by name


@pytest.mark.parametrize(
    'name, text',
    [
        ('backbone.stage.1', r"no such layer; did you mean 'backbone.stages.1'.*upper ones are .*neck.*--list-layers"),
        ('neck[7]', r'neck\[7\]: the layer gives 5 maps'),
        ('roi_head.bbox_head.shared_fcs.0', r'shape \(\d+, 1024\) is no map over the picture'),
    ],
)
def test_a_layer_that_gives_no_map_is_one_clear_error(mask_rcnn, tmp_path, name, text):
    subject, pictures = mask_rcnn
    with pytest.raises(UserError, match=text):
        features(subject, pictures, tmp_path, [name], score_threshold=LOWEST)


def test_the_layers_with_maps_are_listed_in_the_order_of_their_run(colours):
    shapes = layers_of(colours, torch.zeros(1, 3, 64, 64), None)
    assert shapes == {'0': (3, 64, 64), '1': (3, 64, 64), '2': (3, 16, 16)}


@pytest.mark.parametrize(
    'shape, size, want',
    [
        ((1, 8, 7, 10), (224, 320), (8, 7, 10)),
        ((1, 7, 10, 8), (224, 320), (8, 7, 10)),  # channels last, as in Swin of timm
        ((1, 8, 5, 5), (99, 99), (8, 5, 5)),  # of convolutions without padding
        ((1, 196, 8), (224, 224), (8, 14, 14)),
        ((1, 197, 8), (224, 224), (8, 14, 14)),  # a class token before
        ((1, 7 * 11, 8), (200, 333), (8, 7, 11)),
        ((1, 191, 8), (224, 224), None),
        ((1, 8, 1, 1), (224, 224), None),
        ((30, 8, 7, 7), (224, 224), None),  # of RoIs
        ((1, 1000), (224, 224), None),
    ],
)
def test_maps_and_tokens_on_a_grid(shape, size, want):
    as_map = layout(shape, size)
    assert (None if as_map is None else tuple(as_map(torch.zeros(shape)).shape)) == want
    if len(shape) == 3 and want:
        tokens = torch.arange(shape[1])[None, :, None].expand(shape)
        assert as_map(tokens)[0, 0, :3].diff().eq(1).all() and as_map(tokens)[0, -1, -1] == shape[1] - 1


# where in the picture


def crop(array: np.ndarray) -> np.ndarray:
    """Half the size, and the middle of that, 40 x 40."""
    half = cv2.resize(array, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    top, left = ((side - 40) // 2 for side in half.shape[:2])
    return half[top : top + 40, left : left + 40]


def pad(array: np.ndarray) -> np.ndarray:
    """Twice the size, padded below and on the right."""
    large = cv2.resize(array, None, fx=2, fy=2)
    return cv2.copyMakeBorder(large, 0, 30, 0, 20, cv2.BORDER_CONSTANT, value=(114, 114, 114))


@pytest.mark.parametrize('change, scale, offset', [(crop, 0.5, (-30, -10)), (pad, 2, (0, 0)), (np.fliplr, None, None)])
def test_a_place_in_the_picture_is_found_in_the_input(change, scale, offset):
    matrix = geometry(change, (120, 200))
    if scale is None:
        want = [[-1, 0, 199], [0, 1, 0]]
    else:  # pixels are squares about their centres
        shift = [scale / 2 - 0.5 + each for each in offset]
        want = [[scale, 0, shift[0]], [0, scale, shift[1]]]
    np.testing.assert_allclose(matrix, want, atol=0.25)
    np.testing.assert_allclose(matrix[:, :2], np.array(want)[:, :2], rtol=2e-3, atol=1e-9)


def test_a_map_comes_back_to_where_the_network_saw_it():
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[40:48, 80:88] = 255
    seen = crop(picture)[..., 0]
    cells = seen.reshape(10, 4, 10, 4).mean((1, 3))  # a map of 10 x 10
    large, visible = over_picture(cells, (40, 40), geometry(crop, (120, 200)), (120, 200))
    assert large.shape == visible.shape == (120, 200)
    rows, columns = np.nonzero(visible)
    assert abs(np.array([rows.min(), rows.max(), columns.min(), columns.max()]) - [20, 99, 60, 139]).max() <= 1
    assert large[~visible].max() == 0
    rows, columns = np.indices(large.shape)
    centre = (rows * large).sum() / large.sum(), (columns * large).sum() / large.sum()
    np.testing.assert_allclose(centre, (43.5, 83.5), atol=0.3)


def test_a_picture_that_is_none_is_named(tmp_path):
    (tmp_path / 'x.png').write_bytes(b'hello')
    for name in ('x.png', 'absent.png'):
        with pytest.raises(DataError, match=name):
            read_picture(tmp_path / name)


def test_without_grad_cam_one_line_says_what_to_install(colours, picture, tmp_path, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"--method layercam .* pip install 'fasternet_mm\[study\]'"):
        features(colours, [picture], tmp_path / 'out', methods=['activation', 'layercam'])
    assert not (tmp_path / 'out').exists()
    assert features(colours, [picture], tmp_path / 'out').pictures[0].maps[0].layer == '2'
