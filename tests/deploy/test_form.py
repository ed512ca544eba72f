"""The deploy form computes what the trained form computes, for any backbone and for whole models."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint, save_checkpoint
from mmpretrain.registry import MODELS
from torch import nn

from fasternet_mm import FasterNet
from fasternet_mm.deploy import switch_to_deploy
from fasternet_mm.engine.runner import load_config
from fasternet_mm.errors import CheckpointError, UserError
from fasternet_mm.ops import fused_conv, private
from fasternet_mm.report.measure.case import raw_outputs
from tests.helpers import build_classifier, relative_error
from tests.helpers.golden import VARIANTS
from tests.helpers.networks import HALF, settled


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(4, 12),
    depths=st.tuples(*[st.integers(1, 2)] * 4),
    n_div=st.integers(1, 4),
    mlp_ratio=st.sampled_from([1, 1.5, 2, 3]),
    act=st.sampled_from(['ReLU', 'GELU', 'SiLU', 'LeakyReLU', 'HSwish']),
    layer_scale=st.sampled_from([0, 0.3]),
    out_norm=st.booleans(),
    out_indices=st.sampled_from([(0, 1, 2, 3), (3,), (0, 2), (1,)]),
    batch=st.integers(1, 3),
    shapes=st.lists(st.tuples(st.integers(32, 80), st.integers(32, 80)), min_size=1, max_size=2),
    grad=st.booleans(),
)
def test_any_backbone_at_any_size(
    width, depths, n_div, mlp_ratio, act, layer_scale, out_norm, out_indices, batch, shapes, grad
):
    arch = dict(embed_dims=width, depths=depths, act_cfg=dict(type=act))
    trained = settled(
        FasterNet(arch, n_div=n_div, mlp_ratio=mlp_ratio, layer_scale_init_value=layer_scale,
                  out_norm=out_norm, out_indices=out_indices)
    )  # fmt: skip
    model = copy.deepcopy(trained)
    model.switch_to_deploy()
    for shape in shapes:  # the second meets weights that were put in order for the first
        images = torch.randn(batch, 3, *shape)
        given = images.clone()
        with torch.set_grad_enabled(grad):
            assert relative_error(model(images), trained(images)) < 1e-5
        torch.testing.assert_close(images, given, rtol=0, atol=0)


@pytest.mark.usefixtures('mmpretrain_scope')
@pytest.mark.parametrize('arch', VARIANTS)
def test_all_six_variants_and_their_classifiers(arch):
    trained, images = settled(build_classifier(arch)), torch.randn(2, 3, 96, 64)
    model = switch_to_deploy(copy.deepcopy(trained))
    assert not [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.inference_mode():
        assert relative_error(model.backbone(images), trained.backbone(images)) < 1e-5
        assert relative_error([model(images)], [trained(images)]) < 1e-5


@pytest.mark.usefixtures('mmpretrain_scope')
@pytest.mark.parametrize('arch', VARIANTS)
@pytest.mark.parametrize('way', ['weights', 'autocast'])
@pytest.mark.parametrize('dtype', HALF)
def test_in_half_precision_it_is_as_near_to_fp32_as_the_trained_form_is(arch, way, dtype):
    trained, images = settled(build_classifier(arch).backbone), torch.randn(2, 3, 96, 96)
    model = switch_to_deploy(copy.deepcopy(trained))
    with torch.inference_mode():
        exact = trained(images)
        if way == 'weights':
            outs = [net.to(dtype)(images.to(dtype)) for net in (trained, model)]
        else:
            with torch.autocast('cpu', dtype):
                outs = [net(images) for net in (trained, model)]
    assert all(out.dtype == dtype for out in outs[1])
    for theirs, ours, want in zip(*outs, exact):
        assert relative_error([ours], [want]) < 1.1 * relative_error([theirs], [want])


def build_detector(tiny_config):
    cfg = Config.fromfile(tiny_config())
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return settled(MODELS.build(dict(cfg.model, _scope_='mmdet'))), cfg


def test_a_whole_mask_rcnn_detects_the_same(tiny_config):
    trained, cfg = build_detector(tiny_config)
    for layer in (trained.rpn_head.rpn_reg, trained.rpn_head.rpn_cls):  # trained ones amplify rounding less
        layer.weight.data *= 0.1
    model = switch_to_deploy(copy.deepcopy(trained))
    # the output norms, too, which went into the neck
    assert not [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    from mmdet.structures import DetDataSample

    meta = dict(img_shape=(64, 96), ori_shape=(64, 96), scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=meta) for _ in images]
    found = []
    with torch.inference_mode():
        for detector in (trained, model):
            detector.test_cfg.rcnn.score_thr = 0.0
            prepared = detector.data_preprocessor(dict(inputs=list(images), data_samples=copy.deepcopy(samples)), False)
            found.append((raw_outputs(detector, prepared['inputs']), detector.predict(*prepared.values())))
    (maps, want), (deployed_maps, got) = found
    flat = lambda parts: [x for part in parts for x in (part if isinstance(part, tuple | list) else [part])]  # noqa: E731
    flat_maps, flat_want = flat(flat(deployed_maps)), flat(flat(maps))
    assert relative_error(flat_maps, flat_want) < 1e-5
    for a, b in zip(got, want):
        a, b = a.pred_instances, b.pred_instances
        assert len(a) == len(b) > 0
        assert relative_error([a.bboxes, a.scores], [b.bboxes, b.scores]) < 1e-5
        assert torch.equal(a.labels, b.labels) and (a.masks != b.masks).float().mean() < 1e-3


def test_convolutions_that_compute_their_weights_are_left_alone(tiny_config):
    settings = {'model.neck.conv_cfg': dict(type='ConvWS'), 'model.neck.norm_cfg': dict(type='BN')}
    cfg = load_config(str(tiny_config()), settings)
    with DefaultScope.overwrite_default_scope('mmdet'):
        trained = settled(MODELS.build(dict(cfg.model, _scope_='mmdet')))
    model, images = switch_to_deploy(copy.deepcopy(trained)), torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert relative_error(model.extract_feat(images), trained.extract_feat(images)) < 1e-5


def test_of_two_backbones_both_are_changed_or_neither(tiny):
    model = nn.ModuleList([FasterNet(**tiny), FasterNet(norm_cfg=dict(type='GN', num_groups=2), **tiny)]).eval()
    with pytest.raises(UserError, match='which cannot be folded'):
        switch_to_deploy(model)
    assert not model[0].deployed


@pytest.mark.usefixtures('mmpretrain_scope')
def test_norms_of_necks_and_heads(tiny):
    """Folded where a convolution has one of its own; not where several norms share a convolution, as RetinaSepBN's."""
    from mmcv.cnn import ConvModule

    shared = nn.Conv2d(8, 8, 3, padding=1)
    model = nn.Module()
    model.backbone = FasterNet(**tiny)
    model.own = ConvModule(8, 8, 3, norm_cfg=dict(type='BN'), efficient_conv_bn_eval=True)
    model.first, model.second = (ConvModule(8, 8, 3, padding=1, norm_cfg=dict(type='BN')) for _ in range(2))
    model.first.conv = model.second.conv = shared
    trained, x = settled(model), torch.randn(1, 8, 16, 16)
    with torch.inference_mode():
        want = [trained.own(x), trained.first(x), trained.second(x)]
        model = switch_to_deploy(copy.deepcopy(trained))
        assert relative_error([model.own(x), model.first(x), model.second(x)], want) < 1e-5
    assert isinstance(model.own.norm, nn.Identity) and isinstance(model.second.norm, nn.BatchNorm2d)


def test_a_second_call_changes_nothing(tiny):
    model, images = settled(FasterNet(**tiny)), torch.randn(1, 3, 64, 64)
    switch_to_deploy(model)
    before, outs = copy.deepcopy(model.state_dict()), model(images)
    assert switch_to_deploy(model) is model
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(a, b) for a, b in zip(model(images), outs))


@pytest.mark.usefixtures('mmpretrain_scope')
def test_the_deployed_form_is_saved_and_loaded(tiny_classifier, tmp_path):
    images = torch.randn(1, 3, 64, 64)
    model = switch_to_deploy(settled(MODELS.build(tiny_classifier)))
    other = switch_to_deploy(settled(MODELS.build(tiny_classifier), seed=1))
    want = model(images)
    assert not torch.equal(other(images), want)
    save_checkpoint(dict(state_dict=model.state_dict()), str(tmp_path / 'deployed.pth'))
    load_checkpoint(other, str(tmp_path / 'deployed.pth'))
    assert torch.equal(other(images), want)  # also where weights were put in the library's order before
    assert torch.equal(pickle.loads(pickle.dumps(model))(images), want)
    assert torch.equal(copy.deepcopy(model)(images), want)


@pytest.mark.usefixtures('mmpretrain_scope')
@pytest.mark.parametrize('deployed_file', [True, False])
def test_weights_of_the_other_form_are_refused_with_the_reason(tiny_classifier, tmp_path, deployed_file):
    model, other = (settled(MODELS.build(tiny_classifier)) for _ in range(2))
    switch_to_deploy(model if deployed_file else other)
    save_checkpoint(dict(state_dict=model.state_dict()), str(tmp_path / 'file.pth'))
    with pytest.raises(CheckpointError, match='deploy form'):
        load_checkpoint(other, str(tmp_path / 'file.pth'))


def test_weights_that_are_loaded_in_inference_mode_are_seen(tiny):
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        model = switch_to_deploy(settled(FasterNet(**tiny)))
        before = model(images)[0].clone()
        model.load_state_dict({name: 2 * tensor for name, tensor in model.state_dict().items()})
        assert not torch.allclose(model(images)[0], before)


def test_weights_that_change_are_seen(tiny):
    model, images = switch_to_deploy(settled(FasterNet(**tiny))), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = model(images)[0].clone()
    model.patch_embed.proj.weight.data = 2 * model.patch_embed.proj.weight.data
    with torch.inference_mode():
        assert not torch.allclose(model(images)[0], before)


def test_gradients_of_the_image(tiny):
    """As Grad-CAM and adversarial examples want them."""
    trained, images = settled(FasterNet(**tiny)), torch.randn(1, 3, 64, 64)
    model = switch_to_deploy(copy.deepcopy(trained))
    gradients = []
    for net in (trained, model):
        x = images.clone().requires_grad_()
        net(x)[-1].square().sum().backward()
        gradients.append(x.grad)
    assert relative_error(gradients[1:], gradients[:1]) < 1e-5


@pytest.fixture
def without_onednn(monkeypatch) -> list[str]:
    """What is said of it."""
    said = []
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    monkeypatch.setattr(private, '_verdicts', {})
    monkeypatch.setattr(private, 'print_log', lambda message, *_: said.append(message))
    return said


def test_without_onednn_ordinary_operators_serve(tiny, without_onednn):
    trained, images = settled(FasterNet(**tiny)), torch.randn(2, 3, 64, 64)
    model = switch_to_deploy(copy.deepcopy(trained))
    with torch.inference_mode():
        assert relative_error(model(images), trained(images)) < 1e-5
    assert len(without_onednn) == 1 and 'This PyTorch has no oneDNN' in without_onednn[0]


@pytest.mark.parametrize('act', ['ReLU', 'GELU', 'SiLU'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures('without_onednn')
def test_the_products_for_cuda(act, dtype, monkeypatch):
    """The path that only CUDA takes, on a CPU: the same operators exist here."""
    arch = dict(embed_dims=8, depths=(1, 1, 2, 1), act_cfg=dict(type=act))
    trained, images = settled(FasterNet(arch, layer_scale_init_value=0.5)), torch.randn(2, 3, 64, 96)
    monkeypatch.setattr(fused_conv, 'takes_cublaslt', lambda x: x.is_contiguous(memory_format=torch.channels_last))
    model = switch_to_deploy(copy.deepcopy(trained))
    calls = []
    by_product = fused_conv.FusedConv2d._by_product
    monkeypatch.setattr(fused_conv.FusedConv2d, '_by_product', lambda *args: calls.append(1) or by_product(*args))
    with torch.inference_mode():
        want = trained(images)
        images = images.contiguous(memory_format=torch.channels_last)  # as the stem does on CUDA
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            assert relative_error(model(images), want) < (1e-5 if dtype == torch.float32 else 2e-2)
    assert len(calls) == 2 * 5


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, 'conv'), reason='this torch knows TF32 by allow_tf32 alone')
def test_tf32_may_be_set_by_any_of_torchs_names():
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.conv.fp32_precision, products.fp32_precision
    try:
        cudnn.conv.fp32_precision, products.fp32_precision = 'tf32', 'ieee'
        assert not fused_conv._products_are_as_fast()
        products.fp32_precision = 'tf32'
        assert fused_conv._products_are_as_fast()
        cudnn.conv.fp32_precision = products.fp32_precision = 'ieee'
        assert fused_conv._products_are_as_fast()
    finally:
        cudnn.conv.fp32_precision, products.fp32_precision = before


def test_a_traced_and_an_exported_backbone(tiny, tmp_path):
    trained, images = settled(FasterNet(**tiny)), torch.randn(2, 3, 64, 64)
    model = switch_to_deploy(copy.deepcopy(trained))
    want = trained(images)
    torch.jit.save(torch.jit.trace(model, images), tmp_path / 'traced.pt')
    assert relative_error(torch.jit.load(tmp_path / 'traced.pt')(images), want) < 1e-5
    torch.export.save(torch.export.export(model, (images,)), tmp_path / 'exported.pt2')
    loaded = torch.export.load(tmp_path / 'exported.pt2')
    assert relative_error(loaded.module()(images), want) < 1e-5
    operators = {str(node.target) for node in loaded.graph.nodes if node.op == 'call_function'}
    assert not [name for name in operators if 'mkldnn' in name or 'batch_norm' in name]


def test_it_cannot_be_trained(tiny):
    model = switch_to_deploy(settled(FasterNet(**tiny)))
    assert model.train(False) is model and not any(p.requires_grad for p in model.parameters())
    with pytest.raises(UserError, match='deploy form, which cannot be trained'):
        model.train()


@pytest.mark.parametrize(
    ('norm', 'message'),
    [('LN2d', 'which cannot be folded'), ('GN', 'which cannot be folded'), ('SyncBN', 'revert_sync_batchnorm')],
)
@pytest.mark.usefixtures('mmpretrain_scope')
def test_a_norm_that_cannot_be_folded(tiny, norm, message):
    norm_cfg = dict(type=norm, **(dict(num_groups=2) if norm == 'GN' else {}))
    model = FasterNet(norm_cfg=norm_cfg, **tiny).eval()
    before = list(model.state_dict())
    with pytest.raises(UserError, match=message):
        switch_to_deploy(model)
    assert list(model.state_dict()) == before and not model.deployed


def test_training_mode_and_models_without_a_fasternet(tiny):
    with pytest.raises(UserError, match='training mode'):
        switch_to_deploy(FasterNet(**tiny))
    with pytest.raises(UserError, match='training mode'):
        FasterNet(**tiny).switch_to_deploy()
    with pytest.raises(UserError, match='Conv2d has no FasterNet'):
        switch_to_deploy(nn.Conv2d(3, 8, 3).eval())
