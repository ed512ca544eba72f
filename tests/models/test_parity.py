"""Equality with the paper authors' own code, by its golden outputs."""

import numpy as np
import pytest
import torch

from fasternet_mm import FasterNet
from fasternet_mm.checkpoint import convert_state_dict
from tests.helpers import build_classifier, relative_error
from tests.helpers.golden import DATA, image, official_state_dict

pytestmark = pytest.mark.usefixtures('mmpretrain_scope')

GOLDEN = np.load(DATA / 'golden_s_detection_backbone.npz')
SHAPE = (2, 3, 64, 96)


@pytest.fixture
def detection_backbone() -> FasterNet:
    model = FasterNet('s', out_norm=True)
    model.load_state_dict(official_state_dict('s', 'detection_backbone', seed=4), strict=True)
    return model


def test_four_features_in_fp32(detection_backbone):
    with torch.no_grad():
        outs = detection_backbone.eval()(image(SHAPE, seed=5))
    for i, out in enumerate(outs):
        assert relative_error(out, GOLDEN[f'feature{i}']) < 1e-5


@pytest.mark.parametrize(('arch', 'seeds'), [('t0', (0, 1)), ('t2', (2, 3))])
def test_logits_in_fp32(arch, seeds):
    model = build_classifier(arch).eval()
    model.load_state_dict(convert_state_dict(official_state_dict(arch, 'classification', seeds[0]), 'mm'))
    golden = np.load(DATA / f'golden_{arch}_classification.npz')
    for name in golden:
        shape = tuple(map(int, name.removeprefix('logits_').split('x')))
        with torch.no_grad():
            assert relative_error(model(image(shape, seeds[1])), golden[name]) < 1e-5


def test_a_training_step_in_fp64(detection_backbone):
    model = detection_backbone.double().train()
    loss = sum((y**3).mean() for y in model(image(SHAPE, seed=5).double()))
    loss.backward()
    assert relative_error(loss.detach(), GOLDEN['train_loss']) < 1e-5
    parts = {
        'gradnorm': {name: p.grad.norm() for name, p in model.named_parameters()},
        'after_step': {name: b.norm() for name, b in model.named_buffers() if name.endswith('running_mean')},
    }
    for part, norms in parts.items():
        want = {key.removeprefix(f'{part}:'): GOLDEN[key] for key in GOLDEN if key.startswith(f'{part}:')}
        assert set(norms) == set(want)
        got = torch.stack([norms[name] for name in sorted(want)])
        assert relative_error(got, np.array([want[name] for name in sorted(want)])) < 1e-5
