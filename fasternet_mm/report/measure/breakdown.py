"""Where the time goes: the parts of a detector, and the layers of a backbone against the machine's roofs."""

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from ...models import PartialConv2d
from ...ops import FusedConv2d
from ..schema import Layer, Measurement, Roofline, Split
from .timing import Limits, measure, timed, warm_up

# the methods of each part of a detector; what is nested in another part counts for the inner one alone
_PARTS = {
    'preprocessing': ['data_preprocessor.forward'], 'backbone': ['backbone.forward'], 'neck': ['neck.forward'],
    'RPN': ['rpn_head.predict'], 'RoI heads': ['roi_head.predict'], 'head': ['bbox_head.predict'],
    'post-processing': [
        'roi_head.bbox_head.predict_by_feat', 'roi_head.mask_head.predict_by_feat', 'bbox_head.predict_by_feat',
        'add_pred_to_datasample',
    ],
}  # fmt: skip


class _Stopwatch:
    """Add up the time of calls by part; a nested call is taken from the part around it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._open = []
        self.seconds = defaultdict(float)

    def _now(self) -> float:
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def watched(self, part: str, call: Callable) -> Callable:
        def wrapper(*args, **kwargs):
            start = self._now()
            self._open.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                taken = self._now() - start
                self.seconds[part] += taken - self._open.pop()
                if self._open:
                    self._open[-1] += taken

        return wrapper

    def watch(self, owner: object, method: str, part: str, stack: ExitStack) -> None:
        """Watch a method of an object until the stack is closed."""
        setattr(owner, method, self.watched(part, getattr(owner, method)))
        stack.callback(delattr, owner, method)  # the class's own shows again


def time_breakdown(
    call: Callable[[int], object], model: nn.Module, shape: Sequence[int], device: torch.device, limits: Limits
) -> Split:
    """Time `call`, ``test_step`` of `model` on images of at most `shape`, by part, in turn with undisturbed calls.

    What is in no part (copying, Python between parts, parts of other detectors) is 'everything else'.
    """
    watch = _Stopwatch(device)
    whole = watch.watched('everything else', call)

    def watched_call(turn: int):
        with ExitStack() as stack:
            for part, paths in _PARTS.items():
                for path in paths:
                    *parents, method = path.split('.')
                    owner = functools.reduce(lambda owner, name: getattr(owner, name, None), parents, model)
                    if owner is not None and hasattr(owner, method):
                        watch.watch(owner, method, part, stack)
            whole(turn)

    warm_up(call, device, limits.warmup)
    watched_call(0)
    watch.seconds.clear()
    # without a warm-up of its own the stopwatch has seen exactly the samples
    turns = measure([call, watched_call], device, Limits(0, limits.min_seconds, limits.repeats))
    if turns.interrupted:
        raise KeyboardInterrupt
    if turns.error:
        raise turns.error
    plain, watched = turns.samples
    calls = len(watched.wall) + watched.warmup
    names = [part for part in _PARTS if part in watch.seconds]
    parts = {part: 1e3 * watch.seconds[part] / calls for part in (*names, 'everything else')}
    total, undisturbed = sum(parts.values()), float(np.mean(plain.wall))
    disagreement = total / undisturbed - 1
    labels = [f'the parts add up to {100 * disagreement:+.1f} % of the whole'] if abs(disagreement) > 0.05 else []
    return Split(list(shape), parts, total, undisturbed, disagreement, labels)


_aten = torch.ops.aten
_KINDS = (
    (PartialConv2d, 'PConv'),
    (_BatchNorm, 'BN'),
    ((nn.LayerNorm, nn.GroupNorm), 'norm'),
    ((nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid), 'activation'),
    (nn.Linear, 'linear'),
)
# the convolutions of a FasterNet, ours or timm's, by a word in their names
_OF_FASTERNET = dict(patch_embed='stem', stem='stem', reduction='merging', downsample='merging', partial_conv='PConv')
_UNCOUNTED = ('BN', 'norm', 'activation')  # whose operations are no multiply-adds


def _kind(name: str, module: nn.Module, fasternet: bool) -> str | None:
    if isinstance(module, nn.Conv2d):
        own = next((kind for word, kind in _OF_FASTERNET.items() if word in name), None) if fasternet else None
        grouped = 'DWConv' if module.groups == module.in_channels else 'GConv'
        dense = 'PWConv' if module.kernel_size == (1, 1) else 'Conv'
        return own or (grouped if module.groups > 1 else dense)
    kind = next((kind for classes, kind in _KINDS if isinstance(module, classes)), None)
    # every library has classes of its own; what is in them has its own time
    named = any(word in type(module).__name__ for word in ('Attention', 'Attn'))
    return kind or ('attention' if named else None)


def roofline(backbone: nn.Module, images: torch.Tensor, row: Measurement, repeats: int = 10) -> Roofline:
    """Compare each layer's achieved arithmetic with what the machine reaches in a large product and in a copy.

    Two operations a multiply-add; bytes are those of input, output and weights, read or written once. Of attention the
    time and the matrix products are those that are in no layer inside it, and bytes are not counted. A residual
    addition and what else is in no layer is 'other'. The floors: operations of convolutions, linear layers and
    attention at the speed of a large product, and their bytes at that of a copy in memory, below which only caches, or
    layers that share a kernel, can get. `row` says what is run; of `repeats` runs the median counts.
    """
    watch, sizes, taken = _Stopwatch(images.device), defaultdict(lambda: np.zeros(2)), []
    inside = {module.partial_conv3 for module in backbone.modules() if isinstance(module, PartialConv2d)}
    fasternet = any(type(module).__name__ == 'FasterNet' for module in backbone.modules())
    kinds = {name: _kind(name, module, fasternet) for name, module in backbone.named_modules() if module not in inside}
    layers = {name: backbone.get_submodule(name) for name, kind in kinds.items() if kind and name}
    with ExitStack() as stack, torch.no_grad():
        for name, module in layers.items():  # which may run more than once
            if kinds[name] != 'attention':
                hook = functools.partial(_add_size, sizes[name])
                stack.enter_context(module.register_forward_hook(hook))
        # a CPU's own attention is not counted
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        counter = stack.enter_context(FlopCounterMode(display=False))
        backbone(images)
    for name in layers:
        sizes[name][0] += _products(counter, backbone, name) if kinds[name] == 'attention' else 0
    with ExitStack() as stack, torch.inference_mode():
        for name, module in layers.items():
            watch.watch(module, 'forward', name, stack)
        whole = watch.watched('everything else', backbone)
        for _ in range(repeats + 2):
            watch.seconds.clear()
            whole(images)
            taken.append(dict(watch.seconds))
    # the first two warm up; what did not run is no layer
    seconds = {name: float(np.median([one[name] for one in taken[2:]])) for name in taken[0]}
    total, rows, needed = sum(seconds.values()), [], np.zeros(2)
    for name, spent in seconds.items():
        kind = kinds[name] if name in layers else 'other'
        operations, moved = map(float, sizes[name])
        needed += sizes[name] if kind not in _UNCOUNTED else 0
        intensity = operations / moved if moved else None
        rows.append(Layer(name, kind, 1e3 * spent, operations / spent / 1e9, intensity, spent / total))
    roofs = [roof(images.device, images.dtype) for roof in (_matmul_gflops, _copy_gb)]
    floors = [float(need) / roof / 1e6 for need, roof in zip(needed, roofs)]
    return Roofline(*roofs, *floors, rows, row.device, row.dtype, row.batch_size, row.mode)


def _products(counter: FlopCounterMode, backbone: nn.Module, name: str) -> int:
    """Return the operations of matrix products that no layer inside does: of two maps, not of a map and weights."""
    counts = counter.get_flop_counts()
    module, root = backbone.get_submodule(name), type(backbone).__name__
    inner = [other for other, one in module.named_modules() if other and _kind(other, one, False) == 'attention']

    def batched(path: str) -> int:
        return sum(count for op, count in counts.get(path, {}).items() if op in (_aten.bmm, _aten.baddbmm))

    return batched(f'{root}.{name}') - sum(batched(f'{root}.{name}.{other}') for other in inner)


def _add_size(size: np.ndarray, module: nn.Module, inputs: tuple[torch.Tensor], out: torch.Tensor) -> None:
    """Add a layer's operations, and the bytes that it reads and writes."""
    (x,), weights = inputs, sum(p.numel() for p in module.parameters())
    # PConv's other channels need not be moved
    share = module.conv_channels / x.shape[1] if isinstance(module, PartialConv2d) else 1.0
    size += _operations(module, out), int((share * (x.numel() + out.numel()) + weights) * x.element_size())


def _operations(module: nn.Module, out: torch.Tensor) -> int:
    """Count two for a multiply-add, one for an element of an activation, two for one of a norm."""
    module = getattr(module, 'partial_conv3', module)  # PConv's
    if isinstance(module, nn.Conv2d):
        return 2 * module.weight.numel() * out.shape[0] * out.shape[2] * out.shape[3]
    if isinstance(module, nn.Linear):
        return 2 * module.weight.numel() * out.numel() // out.shape[-1]
    return out.numel() * (2 if isinstance(module, _BatchNorm) else 1)


def _best(call: Callable[[int], object], device: torch.device) -> float:
    return min(timed(call, turn, device)[0] for turn in range(10)) / 1e3


@functools.cache  # one roof for all models of a run
@torch.inference_mode()
def _matmul_gflops(device: torch.device, dtype: torch.dtype) -> float:
    size = 8192 if device.type == 'cuda' else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    fastest = _best(lambda turn: a @ b, device)
    # BLAS may be slow on some processors, as MKL is on AMD's; oneDNN with its own weights is not
    if device.type == 'cpu':
        product = FusedConv2d(nn.Conv2d(size, size, 1, bias=False)).to(dtype)
        pixels = a.view(1, 32, -1, size).permute(0, 3, 1, 2)
        fastest = min(fastest, _best(lambda turn: product(pixels), device))
    return 2 * size**3 / fastest / 1e9


@functools.cache
def _copy_gb(device: torch.device, dtype: torch.dtype) -> float:
    source = torch.zeros(2**28 // dtype.itemsize, device=device, dtype=dtype)  # 256 MiB
    target = torch.empty_like(source)
    return 2 * 2**28 / _best(lambda turn: target.copy_(source), device) / 1e9
