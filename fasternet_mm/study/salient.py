"""Where 3x3 filters are largest: the paper's figure 6."""

import torch

from ..errors import UserError
from .layers import filters, stages
from .schema import Salient, SalientStage
from .subject import Subject


def salient(subject: Subject) -> Salient:
    """Count, by stage, at which of the nine positions each 3x3 filter is largest.

    A filter is what makes one output channel, (in_channels, 3, 3); at each position its norm over the input channels
    is taken (section 3.3: the Frobenius norm). All regular convolutions count, PConv's own among them.

    Raises:
        UserError: If the network has no regular 3x3 convolution.
    """
    convs, found = filters(subject.model), []
    for stage, names in stages(subject, convs).items():
        squares = torch.cat([convs[name].weight.detach().double().square().sum(1).flatten(1) for name in names])
        squares = squares[squares.sum(1) > 0]  # a filter of zeros is largest nowhere
        if not len(squares):
            continue
        found.append(
            SalientStage(
                stage,
                names,
                filters=len(squares),
                counts=torch.bincount(squares.argmax(1), minlength=9).tolist(),
                energy=(squares / squares.sum(1, keepdim=True)).mean(0).tolist(),
            )
        )
    if not found:
        raise UserError(f'{subject.name} has no regular 3x3 convolution')
    return Salient(found)
