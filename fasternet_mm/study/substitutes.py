"""What can stand in for a regular 3x3 convolution: as functions of its patches, fitted from second moments, as layers.

Each ends in a pointwise convolution with a bias, which a norm after it would hold anyway, and has a stride of its own:
the depthwise and the grouped convolution take it, after PConv (whose stride is 1) the pointwise convolution does.
"""

import torch
from torch import Tensor, nn

from ..adapt.least_squares import SecondMoments, fit_pconv
from ..models import PConvBlock
from .rows import Moments, add_ridge

DWCONV, GCONV, PCONV = 'DWConv + PWConv', 'GConv (16) + PWConv', 'PConv + PWConv'
BEST, PWCONV, TSHAPED = 'PConv + PWConv, best of 8 random quarters', 'PWConv', 'T-shaped conv'
_SETTLED = 1e-4  # an alternating fit has converged when a sweep lowers the error by less than this share
_SWEEPS = 60  # at most
_STARTS = 3


class Substitute(nn.Module):
    """Map patches (n, in_channels, 9) to outputs (n, out_channels), as two layers would whose parameters it holds.

    Args:
        conv (nn.Conv2d): What it stands in for; its weights are not used.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = conv.in_channels, conv.out_channels, conv.stride

    def forward(self, patches: Tensor) -> Tensor:
        """Return the outputs."""
        raise NotImplementedError

    def fit(self, moments: Moments) -> str:
        """Take the weights of the least squared error, and return what that means here."""
        raise NotImplementedError

    def layer(self) -> nn.Module:
        """Return it as layers that take maps, with the same weights."""
        raise NotImplementedError

    def _set(self, moments: Moments, **weights: Tensor) -> None:
        """Set parameters, and the bias so that the mean is met."""
        for name, value in weights.items():
            getattr(self, name).data.copy_(value)
        self.bias.data.zero_()
        mean = moments.input_mean.view(1, -1, 9).to(self.bias.dtype)
        with torch.no_grad():
            self.bias.data.copy_(moments.output_mean.to(self.bias.dtype) - self(mean)[0])


class Linear(Substitute):
    """The least squares of some of the patches' values: the pointwise convolution, and the T-shaped one.

    Equations 6 and 7 count the T-shaped convolution: 3x3 pixels of the first channels, the centre of the others, and
    no limit to the rank.

    Args:
        conv (nn.Conv2d): As for :class:`Substitute`.
        conv_channels (int): Number of first channels of which it sees all nine pixels.
    """

    def __init__(self, conv: nn.Conv2d, conv_channels: int = 0) -> None:
        super().__init__(conv)
        self.conv_channels = conv_channels
        seen = torch.zeros(conv.in_channels, 9, dtype=torch.bool)
        seen[:, 4], seen[:conv_channels] = True, True
        self.register_buffer('seen', seen.flatten().nonzero()[:, 0])
        linear = nn.Linear(len(self.seen), conv.out_channels)
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, patches: Tensor) -> Tensor:
        return nn.functional.linear(patches.flatten(1)[:, self.seen], self.weight, self.bias)

    def fit(self, moments: Moments) -> str:
        seen = self.seen
        self._set(moments, weight=solved(moments.inputs[seen][:, seen], moments.cross[seen]).T)
        return 'exact: least squares'

    def layer(self) -> nn.Module:
        centres = nn.Conv2d(self.in_channels - self.conv_channels, self.out_channels, 1, self.stride)
        first = 9 * self.conv_channels
        centres.weight.data.copy_(self.weight[:, first:, None, None])
        centres.bias.data.copy_(self.bias)
        if not first:
            return centres
        patches = nn.Conv2d(self.conv_channels, self.out_channels, 3, self.stride, 1, bias=False)
        patches.weight.data.copy_(self.weight[:, :first].reshape(patches.weight.shape))
        return _TShaped(patches, centres)


class _TShaped(nn.Module):
    def __init__(self, patches: nn.Conv2d, centres: nn.Conv2d) -> None:
        super().__init__()
        self.patches, self.centres = patches, centres

    def forward(self, x: Tensor) -> Tensor:
        first = self.patches.in_channels
        first, rest = x.split((first, x.shape[1] - first), 1)
        return self.patches(first) + self.centres(rest)


class PConvPointwise(Substitute):
    """PConv and a pointwise convolution.

    Args:
        conv (nn.Conv2d): As for :class:`Substitute`.
        channels (Tensor, optional): Numbers of the quarter of the channels that is convolved. Defaults to the first.
    """

    def __init__(self, conv: nn.Conv2d, channels: Tensor | None = None) -> None:
        super().__init__(conv)
        chosen = torch.arange(conv.in_channels // 4) if channels is None else channels.sort().values
        rest = torch.ones(conv.in_channels, dtype=torch.bool)
        rest[chosen] = False
        self.register_buffer('chosen', chosen)
        self.register_buffer('rest', rest.nonzero()[:, 0])
        block = PConvBlock(conv.in_channels, conv.out_channels)
        self.partial = nn.Parameter(block.pconv.partial_conv3.weight.data.flatten(1))
        self.pointwise, self.bias = nn.Parameter(block.pwconv.weight.data[..., 0, 0]), block.pwconv.bias

    def forward(self, patches: Tensor) -> Tensor:
        convolved = patches[:, self.chosen].flatten(1) @ self.partial.T
        both = torch.cat((convolved, patches[:, self.rest, 4]), 1)
        return nn.functional.linear(both, self.pointwise, self.bias)

    def fit(self, moments: Moments) -> str:
        patches = (9 * self.chosen[:, None] + torch.arange(9, device=self.chosen.device)).flatten()
        order = torch.cat((9 * self.rest + 4, patches))
        chosen = SecondMoments()
        chosen.inputs, chosen.cross = moments.inputs[order][:, order], moments.cross[order]
        chosen.outputs = moments.outputs
        fit = fit_pconv(chosen, len(self.chosen), 3, bias=False)
        self._set(moments, partial=fit.partial.flatten(1), pointwise=fit.pointwise[..., 0, 0])
        return 'exact: reduced-rank regression'

    def layer(self) -> nn.Module:
        """Return a PConvBlock; the channels that it convolves come first in its input."""
        block = PConvBlock(self.in_channels, self.out_channels, stride=self.stride)
        block.pconv.partial_conv3.weight.data.copy_(self.partial.reshape(block.pconv.partial_conv3.weight.shape))
        block.pwconv.weight.data.copy_(self.pointwise[..., None, None])
        block.pwconv.bias.data.copy_(self.bias)
        return block


class GroupedPointwise(Substitute):
    """A grouped convolution, of as many channels out as in, and a pointwise one; depthwise with as many groups.

    Args:
        conv (nn.Conv2d): As for :class:`Substitute`.
        groups (int): Number of groups; divides the input channels.
    """

    def __init__(self, conv: nn.Conv2d, groups: int) -> None:
        super().__init__(conv)
        self.groups = groups
        grouped = nn.Conv2d(conv.in_channels, conv.in_channels, 3, groups=groups)
        pointwise = nn.Linear(conv.in_channels, conv.out_channels)
        self.grouped = nn.Parameter(grouped.weight.data.flatten(1).unflatten(0, (groups, -1)))  # (groups, out, in * 9)
        self.pointwise, self.bias = pointwise.weight, pointwise.bias

    def forward(self, patches: Tensor) -> Tensor:
        grouped = patches.flatten(1).unflatten(1, (self.groups, -1)).transpose(0, 1)  # (groups, n, in * 9)
        between = (grouped @ self.grouped.transpose(1, 2)).transpose(0, 1).flatten(1)
        return nn.functional.linear(between, self.pointwise, self.bias)

    def fit(self, moments: Moments) -> str:
        """Fit group by group, each exactly given the others, and then all of the pointwise weights, until it settles.

        For one group, its filters and what the pointwise convolution takes of them are one linear map of limited rank,
        so the best of both is a reduced-rank regression. No step raises the error, but where it settles need not be
        the optimum, so there are several starts: the filters that explain most by themselves, and random ones.
        """
        fits = [_alternate(moments, self.groups, start) for start in range(_STARTS)]
        best = min(fits, key=lambda fit: fit.history[-1])
        self._set(moments, grouped=best.filters, pointwise=best.pointwise)
        errors = [float(fit.history[-1] / moments.outputs.clamp(min=1e-300)) for fit in fits]
        sweeps = [len(fit.history) for fit in fits]
        settled = sum(number < _SWEEPS for number in sweeps)
        return (
            f'alternating: {settled} of {_STARTS} starts settled, after {min(sweeps)} to {max(sweeps)} sweeps, at '
            f'training errors of {min(errors):.4g} to {max(errors):.4g}'
        )

    def layer(self) -> nn.Module:
        grouped = nn.Conv2d(self.in_channels, self.in_channels, 3, self.stride, 1, groups=self.groups, bias=False)
        grouped.weight.data.copy_(self.grouped.reshape(grouped.weight.shape))
        pointwise = nn.Conv2d(self.in_channels, self.out_channels, 1)
        pointwise.weight.data.copy_(self.pointwise[..., None, None])
        pointwise.bias.data.copy_(self.bias)
        return nn.Sequential(grouped, pointwise)


class Alternated:
    """Hold what an alternating fit found.

    Attributes:
        filters (Tensor): (groups, channels of a group, features of a group).
        pointwise (Tensor): (out_channels, in_channels).
        history (list[Tensor]): The squared error after each sweep; never grows.
    """

    def __init__(self, moments: Moments, filters: Tensor) -> None:
        self.filters, self.stride = filters, 1.0
        self.groups, self.channels, self.features = filters.shape
        self.moments = moments
        self.inputs = moments.inputs.view(self.groups, self.features, self.groups, self.features)
        self.history = [self.solve_pointwise()]

    def seen(self, group: int) -> Tensor:
        """Return second moments of a group's patches and all filters' outputs, (features, groups * channels)."""
        return torch.einsum('ahf,hcf->ahc', self.inputs[group], self.filters).flatten(1)

    def solve_pointwise(self) -> Tensor:
        """Take the best pointwise weights for the filters, all at once, and return the squared error."""
        between = torch.cat([self.filters[group] @ self.seen(group) for group in range(self.groups)])
        cross = (self.filters @ self.moments.cross.unflatten(0, (self.groups, -1))).flatten(0, 1)
        self.pointwise = solved(between, cross).T
        explained = 2 * (self.pointwise.T * cross).sum() - ((self.pointwise @ between) * self.pointwise).sum()
        return (self.moments.outputs - explained).clamp(min=0)

    def sweep(self, roots: Tensor) -> None:
        """Fit each group in turn, given the others, then the pointwise weights, and go further that way if it helps.

        Args:
            roots (Tensor): Lower Cholesky factors of each group's second moments, (groups, features, features).
        """
        before = self.filters.clone()
        for group in range(self.groups):
            own = slice(group * self.channels, (group + 1) * self.channels)
            others = self.pointwise.clone()
            others[:, own] = 0
            left = self.moments.cross[group * self.features : (group + 1) * self.features] - self.seen(group) @ others.T
            self.filters[group], self.pointwise[:, own] = reduced_rank(roots[group], left, self.channels)
        error = self.solve_pointwise()
        # filters of a group are known up to a rotation: take the one that is nearest to those before
        white = roots.transpose(1, 2) @ before.transpose(1, 2)
        left, _, right = torch.linalg.svd(self.filters @ roots @ white)
        swept = self.filters, self.pointwise
        turned = (left @ right).transpose(1, 2) @ self.filters
        self.filters = turned + self.stride * (turned - before)
        further = self.solve_pointwise()
        if further < error:
            self.stride *= 1.5
        else:
            self.filters, self.pointwise = swept
            self.stride = max(self.stride / 2, 0.5)
        self.history.append(torch.minimum(error, further))


def _alternate(moments: Moments, groups: int, start: int) -> Alternated:
    """Return an alternating fit from one of several starts."""
    features = len(moments.inputs) // groups
    channels = features // 9
    blocks = moments.inputs.view(groups, features, groups, features).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    roots = torch.linalg.cholesky(blocks)
    if start == 0:  # as if the other groups were not there
        parts = moments.cross.split(features)
        filters = torch.stack([reduced_rank(root, part, channels)[0] for root, part in zip(roots, parts)])
    else:
        generator = torch.Generator().manual_seed(start)
        filters = torch.randn(groups, channels, features, generator=generator, dtype=torch.float64).to(moments.inputs)
    fit = Alternated(moments, filters)
    while len(fit.history) < _SWEEPS:
        fit.sweep(roots)
        if fit.history[-2] - fit.history[-1] <= _SETTLED * fit.history[-2]:
            break
    return fit


def reduced_rank(root: Tensor, cross: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the best linear map of a rank, as filters (rank, features) and their mixes (outputs, rank).

    Args:
        root (Tensor): Lower Cholesky factor of the inputs' second moments, (features, features).
        cross (Tensor): Second moments of the inputs and of what is wanted, (features, outputs).
        rank (int): At most the number of features.
    """
    white = torch.linalg.solve_triangular(root, cross, upper=False)
    directions = torch.linalg.eigh(white @ white.T).eigenvectors[:, -rank:]
    filters = torch.linalg.solve_triangular(root.T, directions, upper=True).T
    return filters, white.T @ directions


def solved(inputs: Tensor, cross: Tensor) -> Tensor:
    """Return the weights of least squares, (features, outputs), from second moments."""
    return torch.cholesky_solve(cross, torch.linalg.cholesky(add_ridge(inputs.clone())))


def substitutes_of(conv: nn.Conv2d) -> tuple[dict[str, Substitute], dict[str, str]]:
    """Return the substitutes of the paper's table 2 and the bounds beside them, and why some cannot be, by name."""
    channels = conv.in_channels
    found = {DWCONV: GroupedPointwise(conv, channels)}
    missing = {GCONV: f'16 groups do not divide {channels} channels'} if channels % 16 else {}
    if not missing:
        found[GCONV] = GroupedPointwise(conv, 16)
    bounds = {PWCONV: Linear(conv), TSHAPED: Linear(conv, channels // 4)}
    return found | {PCONV: PConvPointwise(conv)} | bounds, missing
