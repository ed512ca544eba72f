"""What a 3x3 convolution sees and gives, output pixel by output pixel."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import unfold

from ..adapt.least_squares import SecondMoments
from ..errors import UserError
from .images import batches
from .layers import device_of, watching
from .subject import Subject

_RIDGE = 1e-10  # over the mean variance of an input: what never changes gets the weight 0
_MOST_VALUES = 2**26  # of all patches of a layer together, 256 MiB

# shows how far an iteration is, as rich's Progress.track: takes what is iterated, its length, and a description
Track = Callable[..., Iterable]


def silent(sequence: Iterable, total: int, description: str) -> Iterable:
    """Show nothing of how far an iteration is."""
    return sequence


@dataclass
class Rows:
    """Hold output pixels of a layer.

    Attributes:
        patches (Tensor): What it sees, (n, in_channels, 9), row by row of the kernel.
        outputs (Tensor): What it gives, (n, out_channels).
        image (Tensor): The number of the image that each comes from, (n,).
    """

    patches: Tensor
    outputs: Tensor
    image: Tensor

    def __len__(self) -> int:
        return len(self.patches)


def rows_of(
    subject: Subject, name: str, parts: dict[str, list[Path]], most: int, track: Track = silent
) -> tuple[dict[str, Rows], tuple[int, int]]:
    """Return pixels of a layer's output, drawn with seed 0, as many of each image, and the size of its input.

    Args:
        subject (Subject): The network.
        name (str): Of a regular 3x3 convolution in it.
        parts (dict[str, list[Path]]): Pictures by part.
        most (int): Number of pixels of all pictures together; fewer where they would not fit into memory.
        track (Callable): See :data:`Track`.

    Raises:
        UserError: If the layer does not run once for each batch.
    """
    conv, device = subject.model.get_submodule(name), device_of(subject.model)
    generator = torch.Generator().manual_seed(0)
    number = sum(map(len, parts.values()))
    each = max(1, min(most, _MOST_VALUES // (9 * conv.in_channels)) // number)
    found, size = {}, None
    for part, files in parts.items():
        patches, outputs = [], []

        def see(x: Tensor, y: Tensor, patches=patches, outputs=outputs) -> None:
            nonlocal size
            size = tuple(x.shape[2:])
            for before, after in zip(x, y):
                pixels = after.shape[1] * after.shape[2]
                drawn = torch.randperm(pixels, generator=generator)[:each].to(device)
                columns = unfold(before[None], 3, padding=1, stride=conv.stride)[0]
                patches.append(columns[:, drawn].T.unflatten(1, (-1, 9)).clone())
                outputs.append(after.flatten(1)[:, drawn].T.clone())

        with watching(conv, see), torch.no_grad():
            for batch in track(
                batches(files, subject.prepare), total=-(-len(files) // 8), description=f'{name}: {part}'
            ):
                subject.run(batch.to(device))
        if len(patches) != len(files):
            raise UserError(f'--layers {name}: it runs {len(patches)} times for {len(files)} images, not once for each')
        image = torch.arange(len(files), device=device).repeat_interleave(len(patches[0]))
        found[part] = Rows(torch.cat(patches), torch.cat(outputs), image)
    return found, size


@dataclass
class Moments:
    """Hold second moments about the mean, of patches and of what is wanted, in float64.

    Attributes:
        inputs (Tensor): (features, features).
        cross (Tensor): (features, outputs).
        outputs (Tensor): Sum of the outputs' variances, a scalar.
        input_mean, output_mean (Tensor): (features,) and (outputs,).
    """

    inputs: Tensor
    cross: Tensor
    outputs: Tensor
    input_mean: Tensor
    output_mean: Tensor

    @classmethod
    def of(cls, rows: Rows) -> 'Moments':
        """Return those of rows, with the nine positions of a channel side by side."""
        sums = SecondMoments()
        x = rows.patches.flatten(1)
        sums.add(torch.cat((x, x.new_ones(len(x), 1)), 1), rows.outputs)
        inputs, cross = sums.inputs.div_(sums.rows), sums.cross.div_(sums.rows)  # in place, for they may be large
        mean, wanted = inputs[-1, :-1].clone(), cross[-1]
        return cls(
            add_ridge(inputs[:-1, :-1].addr_(mean, mean, alpha=-1)),
            cross[:-1].addr_(mean, wanted, alpha=-1),
            sums.outputs / sums.rows - wanted.square().sum(),
            mean,
            wanted,
        )


def add_ridge(inputs: Tensor) -> Tensor:
    """Add very little to the diagonal of second moments, in place, so that they can be inverted, and return them."""
    inputs.diagonal().add_((_RIDGE * inputs.diagonal().mean()).clamp(min=1e-60))
    return inputs
