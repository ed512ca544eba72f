"""How much the channels of feature maps repeat one another: the paper's figure 3, and numbers for it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..adapt.least_squares import SecondMoments
from ..errors import UserError
from ..models import PartialConv2d
from .images import batches, split
from .layers import device_of, filters, require_layer, stages
from .rows import Track, silent
from .schema import Redundancy, RedundantLayer
from .subject import Subject
from .substitutes import solved

_MOST_MAPS = 63  # in a picture, beside the image


def redundancy(
    subject: Subject, files: Sequence[Path], layers: Sequence[str] | None = None, track: Track = silent
) -> tuple[Redundancy, dict[str, Tensor]]:
    """Measure how much the channels of the maps that layers see repeat one another.

    Args:
        subject (Subject): The network.
        files (Sequence[Path]): Pictures; on 80 % the others are fitted, on 20 % what is explained is counted.
        layers (Sequence[str], optional): Names of layers that take one map. Defaults to the first regular 3x3
            convolution of each stage: what PConv would see in its place.
        track (Callable): See :data:`~fasternet_mm.study.rows.Track`.

    Returns:
        tuple[Redundancy, dict[str, Tensor]]: The numbers, and the first maps of the first picture by layer, (n, H, W).

    Raises:
        UserError: If a layer does not exist or does not take one map of fixed channels, or there are too few pictures.
    """
    parts = split(files, dict(train=0.8, test=0.2))
    modules = dict(subject.model.named_modules())
    names = list(layers or _first_layers(subject))
    for name in names:
        require_layer(modules, name)
    if not names:
        raise UserError(f'{subject.name} has no regular 3x3 convolution; name --layers')
    found, maps = [], {}
    for name in names:
        layer, maps[name] = _layer(subject, name, parts, files[0], track)
        found.append(layer)
    return Redundancy(found, {part: len(files) for part, files in parts.items()}), maps


def _first_layers(subject: Subject) -> list[str]:
    """Return the first regular 3x3 convolution of each stage; a PConv where that is its own, which sees a quarter."""
    first = [names[0] for names in stages(subject, filters(subject.model)).values()]
    parents = {name: name.rpartition('.')[0] for name in first}
    return [parents[name] if isinstance(subject.model.get_submodule(parents[name]), PartialConv2d) else name
            for name in first]  # fmt: skip


def _layer(
    subject: Subject, name: str, parts: dict[str, list[Path]], first: Path, track: Track
) -> tuple[RedundantLayer, Tensor]:
    layer, device = subject.model.get_submodule(name), device_of(subject.model)
    sums, seen = {part: SecondMoments() for part in parts}, []

    def keep(x: Tensor) -> None:
        seen.append(_require_map(name, x)[0].float().cpu().clone())

    with torch.inference_mode():
        with _inputs(layer, keep):
            subject.run(subject.prepare(first)[None].to(device))
        if not seen:
            raise UserError(f'--layers {name}: images do not reach it')
        for part, files in parts.items():

            def add(x: Tensor, part=part) -> None:
                pixels = _require_map(name, x).movedim(1, -1).flatten(0, 2)
                pixels = torch.cat((pixels, pixels.new_ones(len(pixels), 1)), 1)
                sums[part].add(pixels, pixels[:, :0])

            what = dict(total=-(-len(files) // 8), description=f'{name}: {part}')
            with _inputs(layer, add):
                for batch in track(batches(files, subject.prepare), **what):
                    subject.run(batch.to(device))
    train, test = (sums[part].inputs for part in ('train', 'test'))
    numbers = measured(train, test)
    return RedundantLayer(
        name, len(train) - 1, list(seen[0].shape[1:]), rows=sum(one.rows for one in sums.values()), **numbers
    ), seen[0][:_MOST_MAPS]


def _inputs(layer: nn.Module, see: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `see` with a layer's input, before the layer may work in place, until the handle is left."""
    return layer.register_forward_pre_hook(lambda module, inputs: see(inputs[0]))


def _require_map(name: str, x: object) -> Tensor:
    if not isinstance(x, Tensor) or x.dim() != 4:
        raise UserError(f'--layers {name}: it takes no map (N, C, H, W)')
    return x


def measured(train: Tensor, test: Tensor) -> dict[str, object]:
    """Return the numbers of a layer's maps.

    Args:
        train, test (Tensor): Sums of products of the channels and of 1, the last, over pixels, (C + 1, C + 1).
    """
    mean = train[-1, :-1] / train[-1, -1]
    covariance = train[:-1, :-1] / train[-1, -1] - mean[:, None] * mean
    alive = covariance.diagonal() > 1e-12 * covariance.diagonal().max()
    some = covariance[alive][:, alive]
    deviation = some.diagonal().sqrt()
    correlation = (some / deviation[:, None] / deviation).abs().fill_diagonal_(0)
    largest = correlation.amax(1) if len(some) else correlation.new_zeros(1)
    held = torch.linalg.eigvalsh(some).flip(0).cumsum(0)
    return dict(
        constant=int((~alive).sum()),
        correlation=torch.quantile(largest, largest.new_tensor([0.25, 0.5, 0.75])).tolist(),
        components=int((held < 0.9 * held[-1:]).sum()) + 1,
        explained=explained(train, test),
    )


def explained(train: Tensor, test: Tensor) -> float:
    """Return how much of the other channels' variance in `test` the first quarter explains, linearly, after `train`."""
    channels = len(train) - 1
    quarter = max(1, channels // 4)
    known, others = [*range(quarter), channels], list(range(quarter, channels))
    weight = solved(train[known][:, known], train[known][:, others])
    inputs, cross, wanted = test[known][:, known], test[known][:, others], test.diagonal()[others]
    left = wanted.sum() - 2 * (weight * cross).sum() + (weight * (inputs @ weight)).sum()
    variance = (wanted - test[-1, others].square() / test[-1, -1]).sum()
    return float(1 - left / variance.clamp(min=1e-300))
