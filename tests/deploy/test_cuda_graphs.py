"""Which calls a CUDA graph serves; the graphs themselves are recorded only where there is a GPU."""

import copy
import pickle

import pytest
import torch

from fasternet_mm import FasterNet
from fasternet_mm.deploy import CudaGraphs, switch_to_deploy


class FakeGraph:
    """Replays by running the network on the buffer."""

    def __init__(self, network, images):
        self.network, self.images = network, images
        self.outputs = tuple(out.clone() for out in network(images))
        self.replays = 0

    def replay(self):
        self.replays += 1
        for out, new in zip(self.outputs, self.network(self.images)):
            out.copy_(new)


@pytest.fixture
def graphs(tiny, monkeypatch):
    model = CudaGraphs(switch_to_deploy(FasterNet(**tiny).eval()), most=2)

    def recorded(x):
        graph = FakeGraph(model.network, x.clone())
        return graph, graph.images, graph.outputs

    monkeypatch.setattr(model, '_can_replay', lambda x: True)
    monkeypatch.setattr(model, '_recorded', recorded)
    return model


def test_each_shape_has_its_graph_up_to_a_bound(graphs):
    shapes = [(64, 64), (64, 96), (64, 64), (96, 96), (64, 96)]
    kept = []
    with torch.inference_mode():
        for shape in shapes:
            images = torch.randn(1, 3, *shape)
            got, want = graphs(images), graphs.network(images.clone())
            assert all(torch.equal(a, b) for a, b in zip(got, want))
            kept.append((got, [out.clone() for out in got]))
        # what was returned is the caller's: later replays leave it alone
        assert all(torch.equal(a, b) for got, before in kept for a, b in zip(got, before))
    assert [graph.replays for graph, *_ in graphs._graphs.values()] == [2, 2]  # the third shape has none


def test_graphs_of_other_weights_or_another_mode_are_dropped(graphs):
    images = torch.randn(1, 3, 64, 64)
    for change in (
        lambda: graphs.load_state_dict(graphs.state_dict()),
        lambda: graphs.eval(),
        lambda: graphs.to(torch.float32),
    ):
        with torch.inference_mode():
            graphs(images)
        assert graphs._graphs
        change()
        assert not graphs._graphs


def test_elsewhere_than_on_cuda_the_network_runs_as_it_is(tiny):
    model = CudaGraphs(FasterNet(**tiny).eval())
    images = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(model(images), model.network(images)))
    assert not model._graphs and not copy.deepcopy(model)._graphs and not pickle.loads(pickle.dumps(model))._graphs


@pytest.mark.skipif(not torch.cuda.is_available(), reason='records CUDA graphs, and no CUDA device is here')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_recorded_graphs_compute_the_same(tiny, dtype):
    network = switch_to_deploy(FasterNet(**tiny).eval()).cuda()
    model = CudaGraphs(network, most=2)
    with torch.inference_mode(), torch.autocast('cuda', dtype, enabled=dtype != torch.float32):
        for shape in [(64, 64), (64, 96), (64, 64), (96, 96)]:
            images = torch.randn(1, 3, *shape, device='cuda')
            for got, want in zip(model(images), network(images)):
                torch.testing.assert_close(got, want)
    assert len(model._graphs) == 2
