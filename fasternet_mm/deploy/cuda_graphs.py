"""CUDA graphs for batches so small that launching kernels takes longer than running them."""

import torch
from torch import Tensor, nn

from ..ops import autocast_dtype


class CudaGraphs(nn.Module):
    """Replays a network's kernels from one CUDA graph for each shape of its input.

    Elsewhere than on CUDA, with gradients, and for shapes beyond the first `most`, the network runs as it is. A graph
    reads the weights where they were when it was recorded: loading, `.to()` and `train()` drop all graphs, other
    changes of the weights do not. Wrap after loading and the switch to the deploy form, and save ``.network``.

    Args:
        network (nn.Module): In evaluation mode; maps (N, C, H, W) to a tensor or a tuple of them.
        most (int): Graphs to keep, each with buffers of its own. Defaults to 8.
    """

    def __init__(self, network: nn.Module, most: int = 8) -> None:
        super().__init__()
        self.network = network
        self.most = most
        self._graphs = {}

    def _load_from_state_dict(self, *args) -> None:
        self._graphs.clear()
        super()._load_from_state_dict(*args)

    def _apply(self, *args, **kwargs) -> 'CudaGraphs':
        self._graphs.clear()
        return super()._apply(*args, **kwargs)

    def train(self, mode: bool = True) -> 'CudaGraphs':
        """Set the mode, in which other kernels run, and return self."""
        self._graphs.clear()
        return super().train(mode)

    def __getstate__(self) -> dict:
        return dict(super().__getstate__(), _graphs={})

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self._can_replay(x):
            return self.network(x)
        inference = torch.is_inference_mode_enabled()  # its buffers cannot be written to outside
        key = (x.shape, x.stride(), x.dtype, x.device, autocast_dtype('cuda'), inference)
        if key not in self._graphs:
            if len(self._graphs) >= self.most:
                return self.network(x)
            self._graphs[key] = self._recorded(x)
        graph, images, outputs = self._graphs[key]
        images.copy_(x)
        graph.replay()
        # the next replay writes over them
        return outputs.clone() if isinstance(outputs, Tensor) else tuple(output.clone() for output in outputs)

    def _can_replay(self, x: Tensor) -> bool:
        return x.is_cuda and not torch.is_grad_enabled() and not torch.cuda.is_current_stream_capturing()

    def _recorded(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor | tuple[Tensor, ...]]:
        with torch.cuda.device(x.device):
            return self._record(x)

    def _record(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor | tuple[Tensor, ...]]:
        images, stream = x.clone(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose their kernels before the recording
            for _ in range(3):
                self.network(images)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # without autocast's cache of cast weights, which would be freed under the graph
        dtype = autocast_dtype('cuda')
        autocast = torch.autocast('cuda', dtype=dtype, enabled=dtype is not None, cache_enabled=False)
        # other threads, as those that pin memory, go on
        with autocast, torch.cuda.graph(graph, stream=stream, capture_error_mode='thread_local'):
            outputs = self.network(images)
        return graph, images, outputs
