"""Claims on classifiers: table 3, figures 2, 7 and 8, table 8."""

from collections.abc import Callable, Mapping

from .claim import Claim, Find, Finding, counts, faster, verdict_if
from .evidence import Evidence, Run
from .quoted import QUOTED, TABLE3

_TABLE3 = 'python tools/report.py --suite table3 --no-eval --threads 1 --batch-size 1 --out table3'
_TABLE3_GPU = 'python tools/report.py --suite table3 --no-eval --device cuda --batch-size 1 32 --out table3_gpu'
_ARM = f'an ARM processor: `{_TABLE3}`'
_OURS = [name for name in TABLE3 if name.startswith('FasterNet')]
_FEWEST = 8  # networks


def _macs(run: Run, name: str) -> float | None:
    model, m = run.rows[name]
    counted = model.multiply_adds
    return counted.total / 1e9 if counted and counted.shape == m.shape else None


def _has_many(run: Run) -> bool:
    """Return whether a run has so many of table 3's networks that it says something of "many"."""
    return sum(bool(name in TABLE3 and _macs(run, name)) for name in run.rows) >= _FEWEST


def _low_flops(evidence: Evidence) -> list[Finding]:
    """Hold if more than half of the networks with fewer multiply-adds than ResNet50 do fewer of them a second."""
    found = []
    for run in evidence.runs('classifier', 'ResNet50', enough=_has_many):
        known = {name: _macs(run, name) for name in run.rows if name in TABLE3 and name not in _OURS}
        fewer = [name for name, macs in known.items() if macs and macs < known['ResNet50']]
        # speed = multiply-adds over time
        slow = [name for name in fewer if known['ResNet50'] / known[name] > run.times('ResNet50', name).high]
        *rates, its = (run.first.batch_size * 1e3 * known[name] / run.ms(name) for name in (*fewer, 'ResNet50'))
        text = (
            f'{len(slow)} of {len(fewer)} do fewer multiply-adds a second than ResNet50: {min(rates):.1f} to '
            f'{max(rates):.1f} G/s, ResNet50 {its:.1f}'
        )
        found.append(Finding.of(run, text, verdict_if(2 * len(slow) > len(fewer))))
    return found


def _fewer_but_slower(evidence: Evidence) -> list[Finding]:
    """Hold if a network takes longer, beyond the noise, than one of the paper's with twice its multiply-adds."""
    found = []
    for run in evidence.runs('classifier', enough=_has_many):
        known = {name: _macs(run, name) for name in run.rows if name in TABLE3}
        known = {name: macs for name, macs in known.items() if macs}
        pairs = [(run.times(a, b), a, b) for a, few in known.items() for b, many in known.items() if 1.9 * few <= many]
        slower = sorted((pair for pair in pairs if pair[0].low > 1), reverse=True)
        text = f'{len(slower) or "none"} of {len(pairs)} such pairs'
        if slower:
            times, a, b = slower[0]
            text += f'; most of all {a} ({known[a]:.2f} G) takes {times} times as long as {b} ({known[b]:.2f} G)'
        found.append(Finding.of(run, text, verdict_if(bool(slower))))
    return found


def _similar_top1(evidence: Evidence) -> list[Finding]:
    """Hold if each FasterNet is faster, beyond the noise, than all networks whose quoted top-1 is within 0.1 of its."""
    pairs = [
        (ours, name)
        for ours in _OURS
        for name, row in TABLE3.items()
        if name not in _OURS and abs(row.top1 - TABLE3[ours].top1) < 0.11
    ]
    found = []
    for run in evidence.runs('classifier', enough=_has_many):
        times = {pair: run.times(*reversed(pair)) for pair in pairs if all(name in run.rows for name in pair)}
        text = f'faster than {sum(one.low > 1 for one in times.values())} of {len(times)}: '
        text += ', '.join(f'{ours} {one} times as fast as {name}' for (ours, name), one in times.items())
        found.append(Finding.of(run, text, verdict_if(all(one.low > 1 for one in times.values()))))
    return found


def _best_tradeoff(evidence: Evidence) -> list[Finding]:
    """Hold if none of the paper's networks is faster, beyond the noise, than a FasterNet that is no more accurate."""
    return _above_the_curve(evidence, lambda run: [name for name in run.rows if name in TABLE3 and name not in _OURS])


def _todays(evidence: Evidence) -> list[Finding]:
    """Hold if the same is so of networks that the paper does not have."""
    return _above_the_curve(evidence, lambda run: [name for name in run.rows if name not in TABLE3])


def _above_the_curve(evidence: Evidence, wanted: Callable[[Run], list[str]]) -> list[Finding]:
    def of(run: Run) -> tuple[list[str], list[str]]:
        return [name for name in _OURS if name in run.rows], [name for name in wanted(run) if run.top1(name)]

    def enough(run: Run) -> bool:
        ours, others = of(run)
        return bool(ours) and len(others) >= _FEWEST

    found = []
    for run in evidence.runs('classifier', enough=enough):
        (ours, others), above = of(run), []
        top1 = {name: run.top1(name) for name in (*ours, *others)}
        for name in others:
            beaten = [f for f in ours if top1[f] <= top1[name] and run.times(name, f).high < 1]
            if beaten:
                best = max(beaten, key=lambda f: top1[f])
                note = run.rows[name][0].published.note if name not in TABLE3 else None  # such as "distilled"
                quoted = f'{top1[name]:.1f} %' + (f', {note}' if note else '')
                above.append(f'{name} ({quoted}) {run.times(best, name)} times as fast as {best} ({top1[best]:.1f} %)')
        text = f'{len(above)} of {len(others)} networks are faster than a FasterNet of no higher quoted top-1'
        text += f': {"; ".join(above)}' if above else ''
        found.append(Finding.of(run, text, verdict_if(not above)))
    return found


def _same_order(evidence: Evidence) -> list[Finding]:
    """Hold if the order of the latencies is the paper's by a rank correlation (Spearman's) of at least 0.9."""
    found = []
    for run in evidence.runs('classifier', enough=_has_many):
        names = [name for name in run.rows if name in TABLE3]
        if run.device != 'CPU':
            continue
        ranks = [
            {name: rank for rank, name in enumerate(sorted(names, key=by))}
            for by in (run.ms, lambda name: TABLE3[name].cpu_ms)
        ]
        n = len(names)
        rho = 1 - 6 * sum((ranks[0][name] - ranks[1][name]) ** 2 for name in names) / (n * (n * n - 1))
        found.append(Finding.of(run, f'rank correlation {rho:.2f} over {n} networks', verdict_if(rho >= 0.9)))
    return found


def _counts(params: Mapping[str, float], gflops: Mapping[str, float]) -> Find:
    """Hold if parameters and multiply-adds are the paper's within 2 %, or by its rounding."""

    def find(evidence: Evidence) -> list[Finding]:
        found = []

        def counted(run: Run) -> list[str]:
            return [name for name in params if name in run.rows and _macs(run, name)]

        for run in evidence.runs('classifier', enough=lambda run: len(counted(run)) >= len(_OURS)):
            figures = []
            for name in counted(run):
                figures += [
                    (name, 'M parameters', run.rows[name][0].parameters / 1e6, params[name], 1),
                    (name, 'G multiply-adds', _macs(run, name), gflops[name], 2),
                ]
            found.append(counts(run, 'networks', figures))
        return found[-1:]

    return find


def _accuracy(a: str, b: str, least: float) -> Find:
    """Hold if top-1 evaluated on all of ImageNet's validation images differs so much, to its printed digit."""

    def find(evidence: Evidence) -> list[Finding]:
        found = []
        for path, date, known in evidence.evaluated(50000):
            top1 = [known.get(name, {}).get('top1') for name in (a, b)]
            if all(top1):
                verdict = verdict_if(top1[0] - top1[1] >= least - 0.1)
                found.append(Finding(f'{top1[0]:.1f} % and {top1[1]:.1f} %', verdict, 'evaluated', path, date))
        return found

    return find


_IMAGENET = (
    "ImageNet's 50,000 validation images and trained weights of both: "
    '`python tools/report.py configs/fasternet_{}_in1k.py fasternet://fasternet_{} ... --out top1`'
)

CLAIMS = [
    Claim('abstract, figure 2', 'Networks with few FLOPs have low FLOPS, lower than that of ResNet50',
          'figure 2, i9-9900X: 13.4 to 51.8 G/s, ResNet50 56.3', _low_flops, _TABLE3),
    Claim('section 1', 'Some networks with half of the FLOPs of another take longer',
          'CycleMLP-B1 2.10 G 116.1 ms, ResNet50 4.11 G 73.0 ms', _fewer_but_slower, _TABLE3, notes=('cyclemlp',)),
    Claim('abstract, 4.3', 'FasterNet-T0 is faster than MobileViT-XXS on a GPU', '2.8 times (6807, 2393 images/s)',
          faster('FasterNet-T0', 'MobileViT-XXS', dict(GPU=2.8)), _TABLE3_GPU),
    Claim('abstract, 4.3', 'FasterNet-T0 is faster than MobileViT-XXS on a CPU', '3.3 times (9.2, 30.8 ms)',
          faster('FasterNet-T0', 'MobileViT-XXS', dict(CPU=3.3)), _TABLE3),
    Claim('abstract, 4.3', 'FasterNet-T0 is faster than MobileViT-XXS on an ARM processor', '2.4 times (143, 348 ms)',
          faster('FasterNet-T0', 'MobileViT-XXS', dict(ARM=2.4)), _ARM, testable=False),
    Claim('abstract, 4.3', 'FasterNet-T0 is more accurate than MobileViT-XXS', '+2.9 % top-1 (71.9, 69.0)',
          _accuracy('FasterNet-T0', 'MobileViT-XXS', 2.9), _IMAGENET.format('t0', 't0'), testable=False),
    Claim('abstract, 4.3', 'FasterNet-L has a higher throughput than Swin-B on a GPU', '36 % (323, 237 images/s)',
          faster('FasterNet-L', 'Swin-B', dict(GPU=1.36)), _TABLE3_GPU),
    Claim('abstract, 4.3', 'FasterNet-L saves compute time on a CPU beside Swin-B',
          '37 %, 1.59 times as fast (219.5, 349.2 ms)',
          faster('FasterNet-L', 'Swin-B', dict(CPU=349.2 / 219.5)), _TABLE3),
    Claim('abstract, 4.3', 'FasterNet-L is as accurate as Swin-B', '83.5 % top-1 both',
          _accuracy('FasterNet-L', 'Swin-B', 0.0), _IMAGENET.format('l', 'l'), testable=False),
    Claim('section 4.3', 'FasterNet-L has a higher throughput than ConvNeXt-B on a GPU', '28 % (323, 253 images/s)',
          faster('FasterNet-L', 'ConvNeXt-B', dict(GPU=1.28)), _TABLE3_GPU),
    Claim('section 4.3', 'FasterNet-L saves compute time on a CPU beside ConvNeXt-B',
          '15 %, 1.17 times as fast (219.5, 257.1 ms)',
          faster('FasterNet-L', 'ConvNeXt-B', dict(CPU=257.1 / 219.5)), _TABLE3),
    Claim('section 4.3', 'FasterNet-L is comparable to ConvNeXt-B in accuracy', '83.5, 83.8 % top-1',
          _accuracy('FasterNet-L', 'ConvNeXt-B', -0.3), _IMAGENET.format('l', 'l'), testable=False),
    Claim('section 4.3, table 3', 'FasterNet is faster than networks of similar accuracy',
          'CPU 1.18 to 2.18 times as fast', _similar_top1, _TABLE3, notes=('quoted',)),
    Claim('section 4.3, figures 7, 8',
          'FasterNet has the best trade-off of accuracy and latency of all networks examined',
          'figures 7 and 8', _best_tradeoff, _TABLE3, notes=('quoted',)),
    Claim('not in the paper', "Today's networks have no better trade-off", '', _todays,
          'python tools/report.py --suite peers --no-eval --threads 1 --batch-size 1 --out peers', notes=('quoted',)),
    Claim('table 3', 'The latencies on a CPU', 'of 35 networks', _same_order, _TABLE3),
    Claim('table 3', 'Parameters and multiply-adds of all networks', 'of 35 networks',
          _counts({n: r.params_m for n, r in TABLE3.items()}, {n: r.gflops for n, r in TABLE3.items()}),
          _TABLE3, notes=('norms',)),
    Claim('table 8', 'Parameters and multiply-adds of the six FasterNets', '3.9 to 93.4 M, 0.34 to 15.49 G',
          _counts(*({n: row[key] for n, row in QUOTED['table8'].items()} for key in ('params_m', 'gflops'))),
          _TABLE3, notes=('tables38',)),
]  # fmt: skip
