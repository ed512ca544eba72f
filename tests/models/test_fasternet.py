import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker

from fasternet_mm import FasterNet
from tests.helpers.golden import LAYOUT
from tests.helpers.networks import HALF, OLD


def strides_of(size: int) -> list[int]:
    sides = [size // 4]
    for _ in range(3):
        sides.append(sides[-1] // 2)
    return sides


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(4, 12),
    depths=st.tuples(*[st.integers(1, 2)] * 4),
    n_div=st.integers(1, 4),
    mlp_ratio=st.sampled_from([1, 1.5, 2, 3]),
    layer_scale=st.sampled_from([0, 1e-5]),
    out_norm=st.booleans(),
    shape=st.tuples(st.integers(32, 80), st.integers(32, 80)),
    in_channels=st.integers(1, 4),
)
def test_four_maps_at_strides_4_to_32_for_any_arch_and_size(
    width, depths, n_div, mlp_ratio, layer_scale, out_norm, shape, in_channels
):
    model = FasterNet(
        arch=dict(embed_dims=width, depths=depths, act_cfg=dict(type='GELU')),
        in_channels=in_channels,
        n_div=n_div,
        mlp_ratio=mlp_ratio,
        layer_scale_init_value=layer_scale,
        out_norm=out_norm,
    ).eval()
    outs = model(torch.randn(1, in_channels, *shape))
    assert isinstance(outs, tuple)
    heights, widths = strides_of(shape[0]), strides_of(shape[1])
    assert [tuple(out.shape) for out in outs] == [(1, width * 2**i, heights[i], widths[i]) for i in range(4)]


@pytest.mark.parametrize('arch', ['t0', 't1', 't2', 's', 'm', 'l'])
def test_named_archs_are_the_official_networks(arch):
    with torch.device('meta'):
        model = FasterNet(arch, out_norm=True)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == LAYOUT[arch]['detection_backbone']
    activations = {type(m) for m in model.modules() if isinstance(m, (nn.GELU, nn.ReLU))}
    assert activations == {nn.GELU if arch in ('t0', 't1') else nn.ReLU}


def test_an_explicit_activation_beats_the_archs():
    model = FasterNet('t0', act_cfg=dict(type='ReLU'))
    assert any(isinstance(m, nn.ReLU) for m in model.modules())
    assert not any(isinstance(m, nn.GELU) for m in model.modules())


@pytest.mark.parametrize(
    ('arch', 'message'),
    [
        ('xl', "unknown arch 'xl' of FasterNet; choose from t0, t1, t2, s, m, l"),
        (dict(depths=(1, 1, 1, 1)), 'arch of FasterNet must be a name or a dict of'),
        (dict(embed_dims=8, depths=(1, 1, 1)), 'must be 4 positive ints'),
        (dict(embed_dims=8, depths=(1, 0, 1, 1)), 'must be 4 positive ints'),
        (dict(embed_dims=8, depths=3), 'must be 4 positive ints'),
        (dict(embed_dims=8, depths=('1', '1', '1', '1')), 'must be 4 positive ints'),
        (dict(embed_dims=[8, 16, 32, 64], depths=(1, 1, 1, 1)), 'embed_dims in arch of FasterNet must be a positive'),
        (dict(embed_dims=8, depths=(1, 1, 1, 1), width=3), 'arch of FasterNet must be a name or a dict of'),
    ],
)
def test_refuses_an_unknown_arch(arch, message):
    with pytest.raises(ValueError, match=message):
        FasterNet(arch)


def test_out_indices_choose_and_order_outputs_and_stay_the_callers(tiny):
    x = torch.randn(1, 3, 64, 64)
    full = FasterNet(**tiny).eval()
    chosen = [-1, 1]
    part = FasterNet(**tiny, out_indices=chosen).eval()
    part.load_state_dict(full.state_dict())
    assert chosen == [-1, 1]
    want, got = full(x), part(x)
    assert len(got) == 2 and torch.equal(got[0], want[3]) and torch.equal(got[1], want[1])
    assert len(FasterNet(**tiny, out_indices=-1)(x)) == 1


@pytest.mark.parametrize('out_indices', [(4,), (-5,), ()])
def test_refuses_out_indices_that_do_not_exist(tiny, out_indices):
    with pytest.raises(ValueError, match='out_indices must be stages from 0 to 3'):
        FasterNet(**tiny, out_indices=out_indices)


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 2, 3), (0, 2), (2,)])
@pytest.mark.parametrize('out_norm', [False, True])
def test_every_parameter_gets_a_gradient_when_every_output_is_used(tiny, out_indices, out_norm):
    model = FasterNet(**tiny, out_indices=out_indices, out_norm=out_norm)
    sum((y**2).mean() for y in model(torch.randn(2, 3, 64, 64))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_drop_path_grows_linearly_over_depth(tiny):
    model = FasterNet(arch=dict(tiny['arch'], depths=(1, 2, 1, 1)), drop_path_rate=0.4)
    rates = [getattr(stage.blocks[i].drop_path, 'drop_prob', 0) for stage in model.stages[::2] for i in
             range(len(stage.blocks))]  # fmt: skip
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_layer_scale_scales_the_branch_alone(tiny):
    x = torch.randn(1, 3, 64, 64)
    model = FasterNet(**tiny, layer_scale_init_value=1e-9).eval()
    bare = model.patch_embed(x)
    assert torch.allclose(model(x)[0], bare, atol=1e-6)
    assert not any('layer_scale' in name for name in FasterNet(**tiny).state_dict())


def trains(part: nn.Module) -> set[bool]:
    return {p.requires_grad for p in part.parameters()} | {m.training for m in part.modules()}


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 3, 4])
def test_frozen_stages_counts_as_mmdets_resnet(tiny, frozen_stages):
    model = FasterNet(**tiny, frozen_stages=frozen_stages, out_norm=True)
    for _ in range(2):
        assert model.train() is model  # going to train() again changes nothing
        frozen = trains(model.patch_embed)
        assert frozen == {frozen_stages < 0}
        for stage in range(4):
            is_frozen = stage < frozen_stages
            assert trains(model.stages[2 * stage]) == {not is_frozen}
            if stage > 0:  # the merging before a stage belongs to it
                assert trains(model.stages[2 * stage - 1]) == {not is_frozen}
            assert trains(getattr(model, f'norm{2 * stage}')) == {True}
        model.eval()
        assert not any(m.training for m in model.modules())


def test_frozen_parts_do_not_move_in_a_training_step(tiny):
    model = FasterNet(**tiny, frozen_stages=2).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1)
    sum((y**2).mean() for y in model(torch.randn(2, 3, 64, 64))).backward()
    optimizer.step()
    moved = {'.'.join(k.split('.')[:2]) for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {f'stages.{i}' for i in (3, 4, 5, 6)}


@pytest.mark.parametrize('frozen_stages', [-2, 5])
def test_refuses_frozen_stages_out_of_range(tiny, frozen_stages):
    with pytest.raises(ValueError, match=f'frozen_stages must be from -1 to 4, but is {frozen_stages}'):
        FasterNet(**tiny, frozen_stages=frozen_stages)


def test_norm_eval_keeps_statistics_but_trains_weights(tiny):
    model = FasterNet(**tiny, norm_eval=True, out_norm=True).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    assert all(p.requires_grad for p in model.parameters())
    assert model.training


def training_step(model: nn.Module, x: torch.Tensor, **autocast):
    model.zero_grad()
    with torch.autocast('cpu', enabled=bool(autocast), **autocast):
        loss = sum((y.float() ** 2).mean() for y in model(x))
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def test_gradient_checkpointing_changes_nothing_but_memory(tiny):
    plain = FasterNet(**tiny).train()
    saving = FasterNet(**tiny, with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 64, 64)
    (loss, grads), (cp_loss, cp_grads) = training_step(plain, x), training_step(saving, x)
    assert torch.equal(loss, cp_loss)
    assert all(torch.equal(grads[name], cp_grads[name]) for name in grads)
    # running statistics included: a recomputed batch is not counted twice
    want, got = plain.state_dict(), saving.state_dict()
    assert all(torch.equal(want[key], got[key]) for key in want)


def test_gradient_checkpointing_keeps_a_third_of_the_activations_of_s():
    def kept(with_cp: bool) -> int:
        model, tracker = FasterNet('s', with_cp=with_cp).train(), MemTracker()
        tracker.track_external(model)
        with tracker:
            bytes_of = lambda: sum(sum(of.values()) for of in tracker.get_tracker_snapshot('current').values())  # noqa: E731
            before = bytes_of()
            _outs = model(torch.randn(2, 3, 64, 64))  # hold the graph
            return bytes_of() - before

    assert kept(True) < 0.35 * kept(False)


@pytest.mark.parametrize('dtype', HALF)
def test_half_precision_is_close_to_fp32(tiny, dtype):
    torch.manual_seed(0)
    model = FasterNet(**tiny).eval()
    x = torch.randn(1, 3, 64, 64)
    want = model(x)
    with torch.no_grad(), torch.autocast('cpu', dtype=dtype):
        autocast = model(x)
    half = copy.deepcopy(model).to(dtype)(x.to(dtype))
    for name, got in dict(autocast=autocast, half=half).items():
        for a, b in zip(got, want):
            assert (a.float() - b).norm() / b.norm() < 0.05, name
    assert all(y.dtype == dtype for y in half)


def test_training_under_autocast_gives_finite_gradients(tiny):
    _, grads = training_step(FasterNet(**tiny).train(), torch.randn(2, 3, 64, 64), dtype=torch.bfloat16)
    assert all(grad.isfinite().all() for grad in grads.values())


def test_channels_last_in_channels_last_out(tiny):
    model = FasterNet(**tiny).eval()
    x = torch.randn(2, 3, 64, 64)
    want = model(x)
    got = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    for a, b in zip(got, want):
        assert torch.allclose(a, b, atol=1e-5)
        assert a.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='this torch has no oneDNN')
@pytest.mark.parametrize('frozen_stages', [-1, 1])
def test_training_on_a_cpu_is_in_onednns_order(tiny, frozen_stages):
    model, x = FasterNet(**tiny, frozen_stages=frozen_stages).train(), torch.randn(2, 3, 64, 64)
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in model(x))
    with torch.no_grad():
        assert all(out.is_contiguous() for out in model(x))


WITH_CP = pytest.param(True, marks=pytest.mark.skipif(OLD, reason='this torch compiles no checkpointed BN'))


@pytest.mark.parametrize('with_cp', [False, WITH_CP])
def test_torch_compile_traces_without_a_break(tiny, with_cp):
    model = FasterNet(**tiny, drop_path_rate=0.0, with_cp=with_cp)
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    x = torch.randn(2, 3, 64, 64)
    (loss, grads), (c_loss, c_grads) = training_step(model.train(), x), training_step(compiled.train(), x)
    assert torch.allclose(loss, c_loss)
    for name, grad in grads.items():
        assert torch.allclose(c_grads[f'_orig_mod.{name}'], grad, atol=1e-5)
    with torch.no_grad():
        for a, b in zip(compiled.eval()(x), model.eval()(x)):
            assert torch.allclose(a, b, atol=1e-5)


def test_default_initialisation_is_a_truncated_normal():
    model = FasterNet('t0')
    model.init_weights()
    weight = model.stages[4].blocks[0].mlp[0].weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05) and weight.abs().max() <= 2
