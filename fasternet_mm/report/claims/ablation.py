"""Claims on the parts of a FasterNet: sections 3.4 and 4.5, table 5."""

from .claim import Claim, Finding, faster, nobody, verdict_if
from .evidence import Evidence

_TABLE5 = 'python tools/report.py --suite table5 --no-eval --threads 1 --batch-size 1 --out table5'
_TRAINING = "300 epochs on ImageNet for each: `tools/train.py` takes a config with the suite's arch dict"


def _quarter_is_fastest(evidence: Evidence) -> list[Finding]:
    """Hold if r = 1/4 is faster, beyond the noise, than both others at equal cost."""
    found = []
    for run in evidence.runs('classifier', 'T0', 'T0 r=1/2', 'T0 r=1/8'):
        times = {name: run.times(name, 'T0') for name in ('T0 r=1/2', 'T0 r=1/8')}
        text = 'times as long as r = 1/4: ' + ', '.join(f'{name} {one}' for name, one in times.items())
        found.append(Finding.of(run, text, verdict_if(all(one.low > 1 for one in times.values()))))
    return found


CLAIMS = [
    Claim('section 4.5, table 5', 'r = 1/4 has a lower latency at similar complexity than 1/2 and 1/8',
          'CPU 9.2 ms; 9.6, 8.9. GPU 6807 images/s; 6626, 6204', _quarter_is_fastest, _TABLE5,
          notes=('eighth', 'width')),
    Claim('section 4.5, table 5', 'r = 1/4 is more accurate than 1/2 and 1/8', '71.9 %; 71.7, 71.3', nobody, _TRAINING,
          testable=False),
    Claim('section 3.4, 4.5', 'BN, merged into the convolutions, is faster than LN',
          'GPU 1.23, CPU 1.16, ARM 1.11 times', faster('T0', 'T0 LN', dict(GPU=1.23, CPU=1.16, ARM=1.11)), _TABLE5),
    Claim('section 3.4, 4.5', 'BN is as effective as LN', '71.9 % both', nobody, _TRAINING, testable=False),
    Claim('section 4.5, table 5', 'At equal width ReLU is faster than GELU: T0', 'GPU 1.02, CPU 1.12, ARM 1.25 times',
          faster('T0 ReLU', 'T0', dict(GPU=1.02, CPU=1.12, ARM=1.25)), _TABLE5),
    Claim('section 4.5, table 5', 'At equal width ReLU is faster than GELU: T2', 'GPU 1.00, CPU 1.06, ARM 1.12 times',
          faster('T2', 'T2 GELU', dict(GPU=1.003, CPU=1.06, ARM=1.12)), _TABLE5),
    Claim('section 3.4, 4.5', 'GELU suits T0 and T1, ReLU the larger variants',
          'T0 71.9 and 71.3 %, T2 78.7 and 78.9 %', nobody, _TRAINING, testable=False),
    Claim('section 3.4', 'Norms and activations after each middle PWConv alone keep features diverse and latency low',
          'no figure', nobody, f'{_TRAINING}, with a block that has them everywhere', testable=False),
]  # fmt: skip
