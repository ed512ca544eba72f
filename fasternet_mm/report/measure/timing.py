"""Latency, measured side by side: alternating samples, warm-up until stable, percentiles, bootstrap ratios."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..schema import Latency

# warm-up ends when the medians of two successive windows differ by less than this
_WINDOW = 5
_STABLE = 0.03


@dataclass
class Limits:
    """Say how long to measure."""

    warmup: float = 10.0  # most seconds of warm-up for each thing measured
    min_seconds: float = 2.0  # least seconds of samples of each
    repeats: int = 20  # least number of samples of each


@dataclass
class Samples:
    """Hold what one thing took, in milliseconds, call by call."""

    wall: list[float] = field(default_factory=list)  # by the wall clock, the device synchronised before and after
    events: list[float] = field(default_factory=list)  # by CUDA events; empty on a CPU
    warmup: int = 0  # calls before, which do not count


@dataclass
class Turns:
    """Hold what :func:`measure` found, also where Ctrl-C or an error ended it early."""

    samples: list[Samples]  # of each thing measured
    interrupted: bool = False  # by Ctrl-C
    failed: int | None = None  # the number of the thing that raised `error`
    error: Exception | None = None


def timed(call: Callable[[int], object], index: int, device: torch.device) -> tuple[float, float | None]:
    """Return the milliseconds of ``call(index)`` by the wall clock, and by CUDA events (None on a CPU)."""
    if device.type != 'cuda':
        start = time.perf_counter()
        call(index)
        return 1e3 * (time.perf_counter() - start), None
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    before.record()
    call(index)
    after.record()
    torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start), before.elapsed_time(after)


def warm_up(call: Callable[[int], object], device: torch.device, most_seconds: float) -> int:
    """Call until two windows of five calls in turn have the same median within 3 %, or time is up; return how often."""
    taken, start = [], time.perf_counter()
    while not taken or time.perf_counter() - start < most_seconds:
        taken.append(timed(call, len(taken), device)[0])
        if len(taken) >= 2 * _WINDOW:
            before, last = np.median(taken[-2 * _WINDOW : -_WINDOW]), np.median(taken[-_WINDOW:])
            if abs(last - before) < _STABLE * before:
                break
    return len(taken)


def measure(calls: Sequence[Callable[[int], object]], device: torch.device, limits: Limits) -> Turns:
    """Time several things side by side: one call of each in turn, so that drift hits all alike.

    Each call is given the number of the turn, for the same work of all in one turn. The order is drawn anew for each
    turn, for what runs after something that fills caches or memory is slower.
    """
    samples = [Samples() for _ in calls]
    orders = np.random.default_rng(0)

    def enough(one: Samples) -> bool:
        return len(one.wall) >= limits.repeats and sum(one.wall) >= 1e3 * limits.min_seconds

    try:
        for number in range(len(calls)):
            samples[number].warmup = warm_up(calls[number], device, limits.warmup)
        while not all(map(enough, samples)):
            turn = len(samples[-1].wall)
            for number in orders.permutation(len(calls)):
                wall, event = timed(calls[number], turn, device)
                samples[number].wall.append(wall)
                if event is not None:
                    samples[number].events.append(event)
    except KeyboardInterrupt:
        return Turns(samples, interrupted=True)
    except Exception as error:
        # its frames would keep what failed in memory while the others go on
        return Turns(samples, failed=number, error=error.with_traceback(None))
    return Turns(samples)


def summary(samples: Sequence[float], warmup: int) -> Latency | None:
    """Return mean and percentiles of milliseconds, with the raw samples; None without any."""
    if not samples:
        return None
    p10, p50, p90, p99 = np.percentile(samples, [10, 50, 90, 99]).tolist()
    rounded = [round(sample, 6) for sample in samples]
    return Latency(float(np.mean(samples)), p10, p50, p90, p99, n=len(samples), warmup=warmup, samples=rounded)


def ratio(a: Sequence[float], b: Sequence[float], resamples: int = 2000) -> tuple[float, tuple[float, float]]:
    """Return how many times as long `a` takes as `b`: the median over the turns, and its 95 % bootstrap interval.

    Calls of one turn are set against each other, so that what slowed both down cancels.
    """
    pairs = min(len(a), len(b))
    quotients = np.asarray(a[:pairs]) / np.asarray(b[:pairs])
    drawn = np.median(quotients[np.random.default_rng(0).integers(0, pairs, (resamples, pairs))], axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return float(np.median(quotients)), (low, high)


def verdict(interval: tuple[float, float], pairs: int) -> str:
    """Return 'a is faster', 'b is faster', or 'within the noise': the interval holds 1, or pairs are too few."""
    low, high = interval
    if low <= 1 <= high or pairs < 5:
        return 'within the noise'
    return 'a is faster' if high < 1 else 'b is faster'
