"""Samples in turn, warm-up, percentiles and ratios, on a clock that the tests turn."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasternet_mm.report.measure import timing
from fasternet_mm.report.measure.timing import Limits, measure, ratio, summary, verdict, warm_up

CPU = torch.device('cpu')


@pytest.fixture
def clock(monkeypatch):
    """A clock that only calls advance: ``takes(name, 20, 30)`` takes 20 ms when called, and 30 from then on."""
    clock = type('Clock', (), dict(now=0.0, log=[]))()

    def takes(name, *milliseconds):
        each = itertools.chain(milliseconds, itertools.repeat(milliseconds[-1]))

        def call(turn):
            clock.log.append(name)
            clock.now += next(each) / 1e3

        return call

    clock.takes = takes
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: clock.now)
    return clock


def test_calls_take_turns(clock):
    samples = measure([clock.takes('a', 20), clock.takes('b', 40)], CPU, Limits(1.0, 0.0, 8)).samples
    turns = [''.join(clock.log[-16:][i : i + 2]) for i in range(0, 16, 2)]
    assert set(turns) == {'ab', 'ba'}  # the order is drawn
    assert [len(one.wall) for one in samples] == [8, 8]


def test_a_known_cost_is_reported_as_it_is(clock):
    (samples,) = measure([clock.takes('a', 50, 35, *[20] * 200)], CPU, Limits(10.0, 1.0, 20)).samples
    result = summary(samples.wall, samples.warmup)
    assert result.p50 == pytest.approx(20) and result.mean == pytest.approx(20)  # the slow start does not count
    assert result.n == 50 and len(result.samples) == 50  # a second of them


def test_warm_up_ends_when_it_is_stable_or_time_is_up(clock):
    assert warm_up(clock.takes('steady', 10), CPU, 60.0) == 10
    shrinking = clock.takes('shrinking', *[1000 * 0.9**i for i in range(40)], 10)
    assert warm_up(shrinking, CPU, 60.0) > 40
    assert warm_up(clock.takes('unstable', *[100 + 20 * i for i in range(1000)]), CPU, 1.0) < 10


def test_both_least_seconds_and_least_repeats_are_kept(clock):
    (long,) = measure([clock.takes('a', 500)], CPU, Limits(0.0, 1.0, 5)).samples
    (short,) = measure([clock.takes('b', 1)], CPU, Limits(0.0, 1.0, 5)).samples
    assert len(long.wall) == 5 and len(short.wall) == pytest.approx(1000, abs=1)


def test_an_interrupt_leaves_what_was_sampled(clock):
    calls = itertools.count()

    def interrupted(turn):
        if next(calls) == 4:
            raise KeyboardInterrupt
        clock.now += 0.01

    turns = measure([clock.takes('a', 10), interrupted], CPU, Limits(0.0, 100.0, 100))
    a, b = turns.samples
    assert turns.interrupted and turns.error is None
    assert len(b.wall) == 3 and len(a.wall) in (3, 4)


def test_what_fails_is_told_by_its_number(clock):
    error = RuntimeError('broken')

    def broken(turn):
        raise error

    turns = measure([clock.takes('a', 10), broken], CPU, Limits(0.0, 0.0, 3))
    assert (turns.failed, turns.error, turns.interrupted) == (1, error, False)


def test_percentiles_are_numpys():
    samples = np.random.default_rng(0).gamma(2.0, size=500).tolist()
    result = summary(samples, warmup=3)
    assert [getattr(result, p) for p in ('p10', 'p50', 'p90', 'p99')] == pytest.approx(
        np.percentile(samples, [10, 50, 90, 99])
    )
    assert result.warmup == 3
    assert summary([], 0) is None


@settings(max_examples=30, deadline=None)
@given(factor=st.sampled_from([0.5, 0.8, 1.25, 2.0]), noise=st.floats(0, 0.02), seed=st.integers(0, 100))
def test_a_ratio_beyond_the_noise_is_named(factor, noise, seed):
    drift = np.linspace(1, 3, 60)  # slows both down alike
    rng = np.random.default_rng(seed)
    a = factor * drift * (1 + noise * rng.standard_normal(60))
    b = drift * (1 + noise * rng.standard_normal(60))
    value, interval = ratio(a.tolist(), b.tolist())
    assert value == pytest.approx(factor, rel=0.03)
    assert interval[0] <= value <= interval[1]
    assert verdict(interval, 60) == ('a is faster' if factor < 1 else 'b is faster')


def test_the_same_thing_twice_has_no_winner():
    rng = np.random.default_rng(0)
    a, b = rng.normal(10, 1, (2, 100))
    assert verdict(ratio(a.tolist(), b.tolist())[1], 100) == 'within the noise'
