"""Claims on operators: sections 3.1 to 3.4, table 1, and what the equations say exactly."""

import math
from collections.abc import Mapping

import numpy as np

from ..render.tables import number
from .claim import Claim, Find, Finding, nobody, verdict_at_least, verdict_if
from .evidence import Evidence, Run, Times
from .quoted import QUOTED

_TABLE1 = 'python tools/report.py --suite table1 --threads 1 --batch-size 1 --mode eager openvino --out table1'
_TABLE1_GPU = 'python tools/report.py --suite table1 --device cuda --batch-size 1 32 --out table1_gpu'
_SIZES = [tuple(size) for size in QUOTED['table1_sizes']]
_OPERATORS = ('Conv', 'GConv', 'DWConv', 'PConv')


# what the equations say, without a clock


def _flops(operator: str, c: int, size: int) -> int:
    """Return the multiply-adds of one 3x3 layer: sections 3.1 and 3.2, equation 4."""
    filters = {'Conv': c * c, 'GConv': c * c // 16, 'DWConv': c, 'PConv': (c // 4) ** 2}
    return size * size * 9 * filters[operator]


def _access(operator: str, c: int, size: int, batch: int = 1) -> int:
    """Return the elements that one 3x3 layer reads and writes, weights included: equations 2, 3 and 5."""
    convolved = c // 4 if operator == 'PConv' else c
    return batch * size * size * 2 * convolved + _flops(operator, c, size) // (size * size)


def _of_all_sizes(text: str, values: list[float], holds: list[bool], digits: int = 2) -> Finding:
    shown = ', '.join(f'{value:.{digits}f}' for value in values)
    return Finding(f'{text}: {shown}; so at {sum(holds)} of {len(holds)} sizes', verdict_if(all(holds)))


def _printed_flops(evidence: Evidence) -> list[Finding]:
    """Hold if the paper's figures are the equations', cut off after the last digit that is printed."""
    off, count = [], 0
    for operator, printed in QUOTED['table1_mflops_of_10_layers'].items():
        for (c, size), theirs in zip(_SIZES, printed):
            ours, scale = _flops(operator, c, size) / 1e5, 100 if isinstance(theirs, float) else 1
            count += 1
            if round(math.floor(ours * scale) / scale, 2) != theirs:
                off.append(f'{operator} {c}x{size} {ours:.2f} M, not {theirs}')
    return [Finding(f'{count} figures, {len(off)} differ' + ''.join(f'; {one}' for one in off), verdict_if(not off))]


def _sixteenth(evidence: Evidence) -> list[Finding]:
    """Hold if equation 4 at r = 1/4 is a sixteenth of a regular convolution, exactly."""
    parts = [_flops('Conv', c, size) / _flops('PConv', c, size) for c, size in _SIZES]
    return [_of_all_sizes('1 over', parts, [part == 16 for part in parts], 0)]


def _quarter(evidence: Evidence) -> list[Finding]:
    """Hold if equation 5 with its weights is at most a quarter of equation 3 with them, for one image and for 32."""
    found = []
    for batch in (1, 32):
        parts = [_access('Conv', *size, batch) / _access('PConv', *size, batch) for size in _SIZES]
        found.append(_of_all_sizes(f'batch {batch}, weights counted, 1 over', parts, [part >= 4 for part in parts], 1))
    return found


def _widened(evidence: Evidence) -> list[Finding]:
    """Hold if equation 2 at c' = 6c, weights counted, is more than equation 3, for one image and for 32."""
    found = []
    for batch in (1, 32):
        times = [_access('DWConv', 6 * c, size, batch) / _access('Conv', c, size, batch) for c, size in _SIZES]
        text = f"batch {batch}, c' = 6c, weights counted, times as much as Conv"
        found.append(_of_all_sizes(text, times, [value > 1 for value in times]))
    return found


def _last_stages_access(evidence: Evidence) -> list[Finding]:
    """Hold if PConv's equation 5 with its weights is less in the mean of the last two sizes than of the first two."""
    found = []
    for batch in (1, 32):
        millions = [_access('PConv', *size, batch) / 1e6 for size in _SIZES]
        shown = ', '.join(f'{value:.2f}' for value in millions)
        verdict = verdict_if(sum(millions[2:]) < sum(millions[:2]))
        found.append(Finding(f'batch {batch}, weights counted: {shown} M elements a layer', verdict))
    return found


def _t_shaped(evidence: Evidence) -> list[Finding]:
    """Hold if equation 6 is more than equation 7 at r = 1/4 and k = 3."""
    t, two = 9 / 4 + 3 / 4, 9 / 16 + 1
    return [Finding(f'{t:.2f} and {two:.4f} times hwc^2: {t / two:.2f} times as much', verdict_if(t > two))]


# what was measured


def _runs(evidence: Evidence) -> list[Run]:
    """Return the runs that have the four operators at all four sizes."""
    return evidence.runs('operator', *(f'{operator} {c}x{size}' for operator in _OPERATORS for c, size in _SIZES))


def _speeds(run: Run, operator: str) -> list[float]:
    """Return 10^9 multiply-adds a second at the four sizes, from medians."""
    return [
        run.first.batch_size * run.rows[name][0].multiply_adds.total / run.ms(name) / 1e6
        for name in (f'{operator} {c}x{size}' for c, size in _SIZES)
    ]


def _mean_ratio(run: Run, a: str, b: str, sizes: tuple[slice, slice] = (slice(4), slice(4))) -> Times:
    """Return the quotient of two operators' mean speeds, with a 95 % interval by bootstrap over the samples."""
    draw, drawn = np.random.default_rng(0), []
    for operator, of in zip((a, b), sizes):
        rows = [run.rows[f'{operator} {c}x{size}'] for c, size in _SIZES[of]]
        speeds = []
        for model, m in rows:
            samples = np.asarray(m.latency_ms.samples)
            medians = np.median(samples[draw.integers(0, len(samples), (1000, len(samples)))], axis=1)
            speeds.append(m.batch_size * model.multiply_adds.total / medians / 1e6)
        drawn.append(np.mean(speeds, axis=0))
    low, high = np.percentile(drawn[0] / drawn[1], [2.5, 97.5]).tolist()
    means = [np.mean(_speeds(run, operator)[of]) for operator, of in zip((a, b), sizes)]
    return Times(float(means[0] / means[1]), low, high)


def _mean_speed(a: str, b: str, paper: Mapping[str, float]) -> Find:
    """Judge how many times as many multiply-adds a second `a` does as `b`, in the mean of the sizes, as the paper."""

    def find(evidence: Evidence) -> list[Finding]:
        found = []
        for run in _runs(evidence):
            times = _mean_ratio(run, a, b)
            text = f'{times} times: {number(np.mean(_speeds(run, a)))} and {number(np.mean(_speeds(run, b)))} G/s'
            found.append(Finding.of(run, text, verdict_at_least(times, paper[run.device])))
        return found

    return find


def _highest(evidence: Evidence) -> list[Finding]:
    """Hold if a regular convolution's mean speed is above each other operator's, beyond the noise."""
    found = []
    for run in _runs(evidence):
        means = {operator: np.mean(_speeds(run, operator)) for operator in _OPERATORS}
        above = [_mean_ratio(run, 'Conv', operator).low > 1 for operator in _OPERATORS[1:]]
        text = 'mean G/s: ' + ', '.join(f'{operator} {number(mean)}' for operator, mean in means.items())
        found.append(Finding.of(run, text, verdict_if(all(above))))
    return found


def _faster_at_all_sizes(a: str, b: str) -> Find:
    """Judge whether `a` takes less time than `b` at every size, beyond the noise."""

    def find(evidence: Evidence) -> list[Finding]:
        found = []
        for run in _runs(evidence):
            times = [run.times(f'{b} {c}x{size}', f'{a} {c}x{size}') for c, size in _SIZES]
            won, lost = sum(one.low > 1 for one in times), sum(one.high < 1 for one in times)
            text = f'faster at {won} of {len(times)} sizes, slower at {lost}; times as fast: '
            text += ', '.join(map(str, times))
            found.append(Finding.of(run, text, verdict_if(won == len(times))))
        return found

    return find


def _last_stages_speed(evidence: Evidence) -> list[Finding]:
    """Hold if PConv's mean speed at the last two sizes is above that at the first two, beyond the noise."""
    found = []
    for run in _runs(evidence):
        times = _mean_ratio(run, 'PConv', 'PConv', (slice(2, 4), slice(0, 2)))
        shown = ', '.join(number(speed) for speed in _speeds(run, 'PConv'))
        found.append(Finding.of(run, f'{shown} G/s: {times} times', verdict_if(times.low > 1)))
    return found


def _two_forms(evidence: Evidence) -> list[Finding]:
    """Hold if both forms were timed at all sizes, which the suite does only after their outputs were found equal."""
    names = [f'{operator} {c}x{size}' for operator in ('PConv', 'PConv slicing') for c, size in _SIZES]
    found = []
    for run in evidence.runs('operator', *names):
        times = [run.times(f'PConv {c}x{size}', f'PConv slicing {c}x{size}') for c, size in _SIZES]
        text = 'equal to 1e-5 relative at all sizes; slicing is times as fast: ' + ', '.join(map(str, times))
        found.append(Finding.of(run, text, verdict_if(True)))
    return found


def _bound_by_memory(evidence: Evidence) -> list[Finding]:
    """Hold if moving what DWConv reads and writes would take at least half of its time at most sizes."""
    found = []
    for run in _runs(evidence):
        shares = []
        for c, size in _SIZES:
            model, m = run.rows[f'DWConv {c}x{size}']
            for one in model.rooflines:
                if (one.dtype, one.batch_size) == (m.dtype, m.batch_size):
                    shares.append(one.memory_floor_ms / m.latency_ms.p50)
        if len(shares) == len(_SIZES):
            text = 'a copy of as many bytes takes '
            text += ', '.join(f'{100 * share:.0f}' for share in shares) + ' % of its time'
            holds = 2 * sum(share >= 0.5 for share in shares) > len(shares)
            found.append(Finding.of(run, text, verdict_if(holds)))
    return found


CLAIMS = [
    Claim('section 3.1, table 1', 'The multiply-adds of the four operators', '2601 M to 3.38 M for ten layers',
          _printed_flops, '', notes=('cut',)),
    Claim('section 3.1, eq. 2, 3', "A DWConv widened to make up for its accuracy accesses more memory than a Conv",
          "2hwc' > 2hwc, c' = 6c in inverted residual blocks", _widened, '', notes=('weights',)),
    Claim('section 3.1', 'A DWConv and a PWConv cannot simply replace a Conv: accuracy drops', 'no figure', nobody,
          'ImageNet, and a training of each: `python tools/train.py CONFIG`', testable=False),
    Claim('section 3.2, eq. 4', 'PConv at r = 1/4 has 1/16 of the FLOPs of a Conv', '1/16', _sixteenth, ''),
    Claim('section 3.2, eq. 5', "PConv at r = 1/4 accesses 1/4 of a Conv's memory", '1/4', _quarter, '',
          notes=('weights',)),
    Claim('section 3.3, eq. 6, 7', 'A T-shaped Conv has more FLOPs than PConv and PWConv',
          '(k^2-1)c > k^2 c_p, so at r = 1/4, k = 3', _t_shaped, ''),
    Claim('section 3.4', 'Blocks in the last two stages access less memory', 'no figure', _last_stages_access, '',
          notes=('weights',)),
    Claim('section 3.4, table 1', 'Blocks in the last two stages have higher FLOPS',
          'PConv G/s: GPU 1493, 2326, 3954, 5324; CPU 29.67, 52.43, 45.25, 32.27; ARM 1.90, 2.44, 3.24, 3.35',
          _last_stages_speed, _TABLE1, notes=('laststages',)),
    Claim('abstract, section 3.1', 'The low FLOPS of DWConv is mainly due to memory access', 'no figure',
          _bound_by_memory, _TABLE1.replace('--mode', '--scope operator roofline --mode')),
    Claim('section 4.1, table 1', 'PConv has higher FLOPS than DWConv', 'GPU 10.5, CPU 6.2, ARM 22.8 times',
          _mean_speed('PConv', 'DWConv', dict(GPU=10.5, CPU=6.2, ARM=22.8)), _TABLE1),
    Claim('section 1, table 1', 'PConv has higher FLOPS than GConv', 'GPU 1.79, CPU 1.54, ARM 1.42 times',
          _mean_speed('PConv', 'GConv', dict(GPU=1.79, CPU=1.54, ARM=1.42)), _TABLE1),
    Claim('section 4.1, table 1', 'A regular Conv has the highest FLOPS',
          'G/s of Conv, GConv, DWConv, PConv: GPU 10151, 1833, 313, 3274; CPU 71.89, 25.93, 6.42, 39.91', _highest,
          _TABLE1),
    Claim('section 4.1, table 1', 'GConv suffers a drastic decrease in FLOPS beside Conv',
          'GPU 5.5, CPU 2.8, ARM 2.1 times', _mean_speed('Conv', 'GConv', dict(GPU=5.5, CPU=2.8, ARM=2.1)), _TABLE1),
    Claim('section 4.1, table 1', 'DWConv suffers a drastic decrease in FLOPS beside Conv',
          'GPU 32, CPU 11, ARM 33 times', _mean_speed('Conv', 'DWConv', dict(GPU=32, CPU=11, ARM=33)), _TABLE1),
    Claim('section 4.1, table 1', 'PConv takes less time than Conv', 'CPU 6.5, 9.2, 8.9, 12.5 times as fast',
          _faster_at_all_sizes('PConv', 'Conv'), _TABLE1),
    Claim('not said', 'DWConv takes less time than PConv, as wide as it is',
          "in table 1 on the CPU at 4 of 4 sizes (3.59 and 5.46 ms to 0.68 and 5.02), on the GPU at 4, on ARM at none",
          _faster_at_all_sizes('DWConv', 'PConv'), _TABLE1, notes=('notsaid',)),
    Claim('appendix', 'PConv by slicing computes what it does by split and concatenation', 'a listing, no figure',
          _two_forms, _TABLE1),
    Claim('appendix E', 'PConv is computationally more efficient than GConv of the same FLOPs',
          'CPU 4.0, 2.5, 1.2, 0.85 times as fast', _faster_at_all_sizes('PConv', 'GConv'), _TABLE1),
]  # fmt: skip
