"""Claims on features and filters: table 2, figures 3 and 6, from studies of trained networks."""

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from .claim import Claim, Find, Finding, verdict_if
from .evidence import Evidence

_STUDY = (
    'weights trained on ImageNet, and photographs: '
    '`python tools/study.py {0} torchvision://resnet50 --images DIR --out {0}`'
)
_REDUNDANCY, _APPROXIMATION = _STUDY.format('redundancy'), _STUDY.format('approximation')
_FILTERS = 'weights trained on ImageNet: `python tools/study.py salient torchvision://resnet18 --out salient`'
_DW, _G, _P, _T = 'DWConv + PWConv', 'GConv (16) + PWConv', 'PConv + PWConv', 'T-shaped conv'
_CENTRE = 4  # of nine


def _of(path: Path, study: dict, text: str, verdict: str) -> Finding:
    images = study['images']
    where = study['model'] + (f', {images["number"]} images' if images else '')
    return Finding(text, verdict, where, path, study['created'][:10])


def _centre(evidence: Evidence) -> list[Finding]:
    """Hold if more filters of trained weights are largest at the centre than at any other position."""
    found = []
    for path, study in evidence.studies_of('salient'):
        stages = [stage['counts'] for stage in study['result']['stages']]
        counts = [sum(of) for of in zip(*stages)]
        others = max(count for position, count in enumerate(counts) if position != _CENTRE)
        leads = sum(max(of) == of[_CENTRE] for of in stages)
        text = (
            f'the centre is largest in {100 * counts[_CENTRE] / sum(counts):.0f} % of {sum(counts)} filters, the next '
            f'position in {100 * others / sum(counts):.0f} %; it leads in {leads} of {len(stages)} stages'
        )
        found.append(_of(path, study, text, verdict_if(counts[_CENTRE] > others)))
    return found


def _redundant(evidence: Evidence) -> list[Finding]:
    """Hold if in every layer half of the principal components, or fewer, have 90 % of the variance of the maps."""
    found = []
    for path, study in evidence.studies_of('redundancy'):
        layers = study['result']['layers']
        parts = [layer['components'] / (layer['channels'] - layer['constant']) for layer in layers]
        text = f'{100 * min(parts):.0f} to {100 * max(parts):.0f} % of the components have 90 % of the variance'
        found.append(_of(path, study, text, verdict_if(max(parts) <= 0.5)))
    return found


def _similar(evidence: Evidence) -> list[Finding]:
    """Hold if in every layer at least half of the channels have a correlation of 0.5 or more with another one."""
    found = []
    for path, study in evidence.studies_of('redundancy'):
        medians = [layer['correlation'][1] for layer in study['result']['layers']]
        text = "a channel's largest correlation with another is " + ', '.join(f'{median:.2f}' for median in medians)
        found.append(_of(path, study, f'{text} in the median of a layer', verdict_if(min(medians) >= 0.5)))
    return found


def _substitutes(study: dict) -> Iterator[dict[str, dict]]:
    for layer in study['result']['layers']:
        yield {one['name']: one for one in layer['substitutes']}


def _lowest_error(fit: str) -> Find:
    """Judge whether PConv + PWConv has the lowest test error in the mean of the layers, by one kind of fit."""

    def find(evidence: Evidence) -> list[Finding]:
        found = []
        for path, study in evidence.studies_of('approximation'):
            layers = [of for of in _substitutes(study) if all(name in of and of[name][fit] for name in (_DW, _G, _P))]
            if not layers:
                continue
            means = {name: mean(of[name][fit]['test_error'] for of in layers) for name in (_DW, _G, _P)}
            best = sum(all(of[name][fit]['ratio_interval'][0] > 1 for name in (_DW, _G)) for of in layers)
            text = 'mean test error over variance: ' + ', '.join(f'{name} {error:.3f}' for name, error in means.items())
            text += f'; PConv leads beyond the noise in {best} of {len(layers)} layers'
            found.append(_of(path, study, text, verdict_if(min(means, key=means.get) == _P)))
        return found

    return find


def _decomposed(evidence: Evidence) -> list[Finding]:
    """Hold if PConv + PWConv has the lower median latency at most layers that were tried."""
    found = []
    for path, study in evidence.studies_of('approximation'):
        times = [
            of[_T]['latency_ms']['p50'] / of[_P]['latency_ms']['p50']
            for of in _substitutes(study)
            if _T in of and _P in of
        ]
        if times:
            text = 'T-shaped takes ' + ', '.join(f'{one:.2f}' for one in times) + ' times as long, by medians'
            found.append(_of(path, study, text, verdict_if(2 * sum(one > 1 for one in times) > len(times))))
    return found


CLAIMS = [
    Claim('section 3.2, figure 3', 'Feature maps share high similarities among channels', 'a picture, no figure',
          _similar, _REDUNDANCY, testable=False, notes=('trained',)),
    Claim('section 3.2, figure 3', 'Feature maps are redundant', 'a picture, no figure',
          _redundant, _REDUNDANCY, testable=False, notes=('trained',)),
    Claim('section 3.3, figure 6', 'The centre of a 3x3 filter is most often its salient position',
          'ResNet18, all four stages; no figures', _centre,
          _FILTERS, testable=False, notes=('trained',)),
    Claim('section 3.3', 'It is better to decompose a T-shaped Conv into PConv and PWConv', 'fewer FLOPs; no latency',
          _decomposed, _APPROXIMATION, testable=False, notes=('trained',)),
    Claim('section 4.2, table 2', 'PConv + PWConv approximates a regular Conv best, trained by Adam',
          'mean test loss of DWConv 0.0148, GConv 0.0133, PConv 0.0123', _lowest_error('trained'),
          _APPROXIMATION, testable=False, notes=('trained', 'stage1')),
    Claim('section 4.2, table 2', 'The same at the optimum, without an optimizer', 'not in the paper',
          _lowest_error('optimum'), _APPROXIMATION, testable=False, notes=('trained',)),
]  # fmt: skip
