"""How near cheap operators come to regular 3x3 convolutions: the paper's table 2, and what it does not say."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ..errors import UserError
from ..report import Limits
from ..report.measure.counting import count_parameters, multiply_adds
from ..report.measure.timing import measure, summary
from ..report.schema import Latency
from .images import split
from .layers import device_of, regular_convs
from .rows import Moments, Rows, Track, rows_of, silent
from .schema import ApproximatedLayer, Approximation, Curve, Fit
from .schema import Substitute as SubstituteRow
from .subject import Subject
from .substitutes import BEST, PCONV, PConvPointwise, Substitute, substitutes_of

_SHARES = dict(train=0.7, val=0.1, test=0.2)  # the paper's
_QUARTERS = 8
_BATCH, _RATE = 256, 1e-2
_LIMITS = Limits(warmup=0.3, min_seconds=0.2, repeats=20)


def approximation(
    subject: Subject,
    files: Sequence[Path],
    layers: Sequence[str] | None = None,
    rows: int = 16384,
    steps: int = 600,
    track: Track = silent,
    limits: Limits = _LIMITS,
) -> Approximation:
    """Fit what could stand in for regular 3x3 convolutions to their outputs, and measure errors and cost.

    Args:
        subject (Subject): The network.
        files (Sequence[Path]): Pictures; 70 % train, 10 % choose, 20 % test.
        layers (Sequence[str], optional): Names of the convolutions. Defaults to the first one of each stage.
        rows (int): Output pixels of each layer, of all pictures together.
        steps (int): Of Adam, each of 256 pixels; 0 leaves training out.
        track (Callable): See :data:`~fasternet_mm.study.rows.Track`.
        limits (Limits): How long to time each.

    Raises:
        UserError: If a layer is no regular 3x3 convolution, or there are too few pictures.
    """
    if rows < 1 or steps < 0:
        raise UserError(f'--rows must be at least 1 and --steps at least 0, but are {rows} and {steps}')
    parts = split(files, _SHARES)
    names = regular_convs(subject, layers)
    found = [_layer(subject, name, parts, rows, steps, track, limits) for name in names]
    return Approximation(found, steps, str(device_of(subject.model)))


def _layer(
    subject: Subject, name: str, parts: dict[str, list[Path]], most: int, steps: int, track: Track, limits: Limits
) -> ApproximatedLayer:
    conv, device = subject.model.get_submodule(name), device_of(subject.model)
    rows, size = rows_of(subject, name, parts, most, track)
    spread = {part: _squares(each.outputs - each.outputs.mean(0), each) for part, each in rows.items()}
    optima, missing, how = _optima(conv, rows, f'{name}: optimum', track)
    fits = _fits({label: one.forward for label, one in optima.items()}, rows, spread, how)
    trained, curves = {}, {}
    if steps:
        predictors, how = {}, {}
        fresh = _fresh(conv, optima)
        for label, one in track(fresh.items(), total=len(fresh), description=f'{name}: Adam'):
            predictors[label], curves[label], how[label] = _trained(one.to(device), rows, spread['val'].sum(), steps)
        trained = _fits(predictors, rows, spread, how)
    layers = {label: one.layer().to(device) for label, one in optima.items()}
    image = torch.zeros(1, conv.in_channels, *size, device=device)
    own, *latencies = _latencies([conv, *layers.values()], image, limits)
    return ApproximatedLayer(
        name,
        channels=[conv.in_channels, conv.out_channels],
        size=list(conv(image).shape[2:]),
        stride=conv.stride[0],
        variance=float(spread['test'].sum() / rows['test'].outputs.numel()),
        rows={part: len(each) for part, each in rows.items()},
        images={part: len(files) for part, files in parts.items()},
        parameters=count_parameters(conv),
        multiply_adds=multiply_adds(lambda: conv(image)),
        latency_ms=own,
        substitutes=[
            SubstituteRow(
                label,
                count_parameters(layers[label]),
                multiply_adds(lambda layer=layers[label]: layer(image)),
                latency,
                fits[label],
                trained.get(label),
                curves.get(label),
                one.chosen.tolist() if label == BEST else None,
            )
            for (label, one), latency in zip(optima.items(), latencies)
        ],
        missing=missing,
        labels=_labels(conv, rows),
    )


def _labels(conv: nn.Conv2d, rows: dict[str, Rows]) -> list[str]:
    labels = []
    if conv.stride != (1, 1):
        labels.append(
            f'its stride is {conv.stride[0]}: the depthwise, grouped and T-shaped convolutions take it as it does, but '
            "PConv's stride is 1, so the pointwise convolution after PConv takes it, at more multiply-adds"
        )
    features = conv.in_channels + 8 * (conv.in_channels // 4)
    if len(rows['train']) < 5 * features:  # the error on others is then half as much again, or more
        labels.append(
            f'{len(rows["train"])} training pixels for {features} weights of each output of the T-shaped convolution: '
            'its errors on other images, and those of PConv, are those of few data'
        )
    return labels


def _optima(
    conv: nn.Conv2d, rows: dict[str, Rows], what: str, track: Track
) -> tuple[dict[str, Substitute], dict[str, str], dict[str, str]]:
    """Return the substitutes of the least squared training error, which there cannot be, and what the fits are."""
    found, missing = substitutes_of(conv)
    moments, how, device = Moments.of(rows['train']), {}, conv.weight.device
    generator = torch.Generator().manual_seed(0)
    quarters = [
        PConvPointwise(conv, torch.randperm(conv.in_channels, generator=generator)[: conv.in_channels // 4])
        for _ in range(_QUARTERS)
    ]
    optima = {}
    for label, one in track(found.items(), total=len(found), description=what):
        how[label] = one.to(device).fit(moments)
        optima[label] = one
        if label == PCONV:
            for quarter in quarters:
                quarter.to(device).fit(moments)
            optima[BEST] = min(quarters, key=lambda one: errors(one.forward, rows['val']).sum())
            how[BEST] = f'{how[PCONV]}; the quarter was chosen on the validation images'
    return optima, missing, how


def _fresh(conv: nn.Conv2d, optima: dict[str, Substitute]) -> dict[str, Substitute]:
    """Return the same substitutes as training starts from: with torch's own random weights, of seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh, _ = substitutes_of(conv)
        fresh[BEST] = PConvPointwise(conv, optima[BEST].chosen.cpu())
    return {label: fresh[label] for label in optima}


Predict = Callable[[Tensor], Tensor]  # from patches (n, in_channels, 9) to outputs (n, out_channels)


def _trained(one: Substitute, rows: dict[str, Rows], spread: float, steps: int) -> tuple[Predict, Curve, str]:
    """Train a substitute by Adam with the mean squared error, and keep it as it was best on the validation pixels.

    Patches and outputs are divided by one number each, so that the learning rate means the same in every layer.
    """
    train = rows['train']
    scale = float(train.patches.square().mean().sqrt()), float(train.outputs.std())
    before, after = (max(value, 1e-30) for value in scale)

    def predict(patches: Tensor) -> Tensor:
        return one(patches / before) * after

    optimizer = torch.optim.Adam(one.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator, order = torch.Generator().manual_seed(0), torch.empty(0, dtype=torch.long)
    checks = sorted({*np.geomspace(min(10, steps), steps, 10).round().astype(int).tolist()})
    curve, best, kept = Curve([], []), math.inf, {}
    for step in range(1, steps + 1):
        if not len(order):
            order = torch.randperm(len(train), generator=generator)
        batch, order = order[:_BATCH].to(train.image.device), order[_BATCH:]
        optimizer.zero_grad()
        mse_loss(one(train.patches[batch] / before), train.outputs[batch] / after).backward()
        optimizer.step()
        schedule.step()
        if step in checks:
            error = float(errors(predict, rows['val']).sum() / spread)
            curve.steps.append(step)
            curve.errors.append(error)
            if error <= best or not kept:
                best, at = error, step
                kept = {name: value.clone() for name, value in one.state_dict().items()}
    one.load_state_dict(kept)
    return predict, curve, f'Adam, {at} of {steps} steps'


def errors(predict: Predict, rows: Rows) -> np.ndarray:
    """Return the sum of squared errors of each image."""
    with torch.no_grad():
        found = torch.cat([predict(part) for part in rows.patches.split(2048)])
    return _squares(found - rows.outputs, rows)


def _squares(differences: Tensor, rows: Rows) -> np.ndarray:
    sums = torch.zeros(int(rows.image[-1]) + 1, dtype=torch.float64, device=rows.image.device)
    return sums.index_add_(0, rows.image, differences.double().square().sum(1)).cpu().numpy()


def _fits(
    predictors: dict[str, Predict], rows: dict[str, Rows], spread: dict[str, np.ndarray], how: dict[str, str]
) -> dict[str, Fit]:
    squares = {label: {part: errors(predict, rows[part]) for part in ('train', 'test')}
               for label, predict in predictors.items()}  # fmt: skip
    fits = {}
    for label, of in squares.items():
        test_error, interval = quotient(of['test'], spread['test'])
        train_error, _ = quotient(of['train'], spread['train'])
        ratio, ratio_interval = quotient(of['test'], squares[PCONV]['test'])
        fits[label] = Fit(train_error, test_error, interval, ratio, ratio_interval, how[label])
    return fits


def quotient(above: np.ndarray, below: np.ndarray, resamples: int = 2000) -> tuple[float, list[float]]:
    """Return the quotient of two sums over images, and its 95 % bootstrap interval, images drawn with replacement."""
    drawn = np.random.default_rng(0).integers(0, len(above), (resamples, len(above)))
    values = above[drawn].sum(1) / np.maximum(below[drawn].sum(1), 1e-30)
    return float(above.sum() / max(below.sum(), 1e-30)), np.percentile(values, [2.5, 97.5]).tolist()


def _latencies(layers: Sequence[nn.Module], image: Tensor, limits: Limits) -> list[Latency]:
    """Return what one image takes in each of the layers, in fp32, in turn."""

    def call(layer: nn.Module) -> Callable[[int], Tensor]:
        def run(turn: int) -> Tensor:
            with torch.inference_mode():
                return layer(image)

        return run

    turns = measure([call(layer) for layer in layers], image.device, limits)
    if turns.interrupted:
        raise KeyboardInterrupt
    if turns.error:
        raise turns.error
    return [summary(samples.wall, samples.warmup) for samples in turns.samples]
