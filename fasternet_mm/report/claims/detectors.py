"""Claims on Mask R-CNN: section 4.4, table 4."""

from .claim import Claim, Find, Finding, counts, faster, verdict_if
from .evidence import Evidence
from .quoted import TABLE4

_TABLE4 = 'python tools/report.py --suite table4 --no-eval --device cuda --out table4'
_COCO = (
    'COCO val2017 at data/coco and trained weights of both: '
    '`python tools/report.py configs/mask_rcnn_fasternet_{}.py fasternet://mask_rcnn_fasternet_{} ... --out ap`'
)
# each FasterNet beside the ResNet or ResNeXt whose latency it is compared with
_PAIRS = (('FasterNet-S', 'ResNet50'), ('FasterNet-M', 'ResNet101'), ('FasterNet-L', 'ResNeXt101-64x4d'))


def _as_fast(evidence: Evidence) -> list[Finding]:
    """Hold if no FasterNet takes longer, beyond the noise and a tenth, than the ResNet or ResNeXt beside it."""
    found = []
    for run in evidence.runs('detector', *(name for pair in _PAIRS for name in pair)):
        times = {f'{a} / {b}': run.times(a, b) for a, b in _PAIRS}
        text = 'times as long: ' + ', '.join(f'{pair} {one}' for pair, one in times.items())
        found.append(Finding.of(run, text, verdict_if(all(one.low <= 1.1 for one in times.values()))))
    return found


def _similar_flops(evidence: Evidence) -> list[Finding]:
    """Hold if the multiply-adds of the two are within a tenth of each other, as table 4 counts."""
    found = []
    for run in evidence.runs('detector', 'FasterNet-L', 'PVT-Large')[-1:]:
        ours, theirs = (run.rows[name][0].multiply_adds.table4 / 1e9 for name in ('FasterNet-L', 'PVT-Large'))
        text = f'{ours:.0f} and {theirs:.0f} G: {ours / theirs:.2f} times as many'
        verdict = verdict_if(abs(ours / theirs - 1) <= 0.1)
        found.append(Finding.counted(run, text, verdict))
    return found


def _counts(evidence: Evidence) -> list[Finding]:
    """Hold if parameters and multiply-adds of all rows are the paper's within 2 %."""
    found = []
    for run in evidence.runs('detector', *TABLE4)[-1:]:
        figures = []
        for name, row in TABLE4.items():
            model = run.rows[name][0]
            figures += [
                (name, 'M parameters', model.parameters / 1e6, row.params_m, 0),
                (name, 'G multiply-adds', model.multiply_adds.table4 / 1e9, row.gflops_1280x800, 0),
            ]
        found.append(counts(run, 'detectors', figures))
    return found


def _ap(a: str, b: str, box: float, mask: float) -> Find:
    """Judge whether AP on all of COCO val2017 is higher by so much, to its printed digit."""

    def find(evidence: Evidence) -> list[Finding]:
        found = []
        for path, date, known in evidence.evaluated(5000):
            if a in known and b in known:
                off = [100 * (known[a][key] - known[b][key]) for key in ('bbox_mAP', 'segm_mAP')]
                holds = all(one >= least - 0.1 for one, least in zip(off, (box, mask)))
                text = f'box {off[0]:+.1f}, mask {off[1]:+.1f}'
                found.append(Finding(text, verdict_if(holds), 'evaluated', path, date))
        return found

    return find


CLAIMS = [
    Claim('section 4.4, table 4', 'FasterNet is about as fast as the ResNets and ResNeXts that it outperforms',
          'GPU, ms: S 54.3, ResNet50 54.9; M 71.4, ResNet101 68.9; L 93.8, ResNeXt101-64x4d 112.9', _as_fast, _TABLE4,
          notes=('made',)),
    Claim('section 4.4, table 4', 'FasterNet-S has a higher AP than ResNet50', 'box +1.9, mask +2.4',
          _ap('FasterNet-S', 'ResNet50', 1.9, 2.4), _COCO.format('s', 's'), testable=False, notes=('mask25',)),
    Claim('section 4.4, table 4', "FasterNet-L reduces PVT-Large's latency",
          '38 %, 1.62 times as fast (93.8, 152.2 ms, GPU)',
          faster('FasterNet-L', 'PVT-Large', dict(GPU=152.2 / 93.8, CPU=152.2 / 93.8), 'detector'), _TABLE4,
          notes=('made',)),
    Claim('section 4.4, table 4', 'This is so under similar FLOPs', '484 and 358 G', _similar_flops, _TABLE4,
          notes=('similar',)),
    Claim('section 4.4, table 4', 'FasterNet-L has a higher AP than PVT-Large', 'box +1.1, mask +0.4',
          _ap('FasterNet-L', 'PVT-Large', 1.1, 0.4), _COCO.format('l', 'l'), testable=False),
    Claim('table 4', 'Parameters and multiply-adds of all detectors', '12 rows', _counts, _TABLE4, notes=('products',)),
]  # fmt: skip
