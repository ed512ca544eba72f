"""docs/claims.md: claim by claim what the paper says, what was found here, and whether it holds."""

import os
from collections import Counter
from pathlib import Path

from ..render.markdown import escaped
from . import ablation, detectors, features, networks, operators
from .claim import FAILS, HOLDS, NOISE, NOT_MEASURED, SMALLER, UNTESTABLE, Claim, Finding
from .evidence import Evidence

SECTIONS = {
    'Classifiers': networks.CLAIMS,
    'Operators': operators.CLAIMS,
    'Features and filters': features.CLAIMS,
    'Mask R-CNN': detectors.CLAIMS,
    'Norms, activations and the partial ratio': ablation.CLAIMS,
}
_NOTES = {
    'quoted': 'Top-1 is quoted: the weights that were timed are random.',
    'cyclemlp': 'No installed package builds CycleMLP, so that the pairs are other ones.',
    'norms': "In these networks the paper counts norms, too, and of PVT it leaves out attention's matrix products.",
    'tables38': "The paper's tables 3 and 8 differ: T2 1.91 and 1.90 G, S 4.56 and 4.55, M 8.74 and 8.72, L 15.52 and "
    '15.49 G and 93.5 and 93.4 M. Counted are 1.90, 4.55, 8.72 and 15.49 G, and 93.47 M.',
    'cut': "Table 1 cuts digits off instead of rounding: 162.57 stands as 162, 13.55 as 13.54, 3.39 as 3.38.",
    'weights': 'The right sides of equations 2, 3 and 5 leave the weights out, which in the last stages, at batch 1, '
    'are most of it: a Conv of 768 channels at 7 x 7 has 71 times as many weights as input and output elements.',
    'laststages': "In the paper's own CPU column the mean of the last two stages, 38.8 G/s, is below that of the first "
    'two, 41.1.',
    'notsaid': 'The paper compares FLOPS, by which DWConv looks slow; its table 1 has these times, its text does not '
    'say it. To be as accurate a network has to widen DWConv: six times in inverted residual blocks.',
    'trained': 'Only studies of trained weights count; which networks these were is said beside.',
    'stage1': 'In stage 1 GConv has the lower loss in the paper, too: 0.0065, PConv 0.0069. The paper does not say '
    'optimizer, epochs, bias, or where the maps end; nor how a convolution of stride 2 is matched.',
    'made': 'The paper measured on a GPU. Labels of the reports say what random weights found.',
    'mask25': 'By table 4 it is +2.5 (36.9, 34.4).',
    'similar': "Table 4 itself has 484 G and 358 G, which leaves out the products of PVT's attention; here they count.",
    'products': "The paper's multiply-adds of PVT leave out the matrix products of attention.",
    'eighth': "In the paper's own CPU and ARM columns r = 1/8 is faster (8.9 and 140 ms) than r = 1/4 (9.2 and 143).",
    'width': 'The paper does not say the widths and depths of these variants; those measured are ours.',
}  # fmt: skip
_DIFFERS = 'differs'  # by the way or the place
_HEAD = """# Does what the paper says hold?

Claim by claim: the abstract, sections 1, 3 and 4 and the appendix of *Run, Don't Walk: Chasing Higher FLOPS for Faster
Neural Networks* (CVPR 2023), what was found here, and a verdict. A command writes this page from the files named at its
end; nobody types a measured number or a verdict. For your own machine:

```bash
python tools/report.py --suite table3 --no-eval --threads 1 --batch-size 1 --out mine/table3
python tools/claims.py mine --out mine/claims.md
```

Reports of `tools/report.py` and studies of `python tools/study.py` count, as many as are found; of one way of running
on one device that of the most networks, or the newest. The commands for what is not measured stand in the rows.

- **{holds}**, **{smaller}**: a ratio holds if its 95 % interval reaches nine tenths of the paper's figure, which is
  another machine's; if it is on the same side of 1 and does not, it holds in kind. Other rules stand beside the claims
  in `fasternet_mm/report/claims/`.
- **{noise}**: the interval of the ratio has 1 in it. **{fails}**: the rule says no.
- **{not_measured}**: the command measures it. **{untestable}**: it takes data, weights or a device that are not here.

Where the findings of a row differ, each has its own verdict. Four figures in turn are at the four sizes of table 1: 96
channels at 56 x 56, 192 at 28 x 28, 384 at 14 x 14 and 768 at 7 x 7. Ratios are of calls in turn, or, of two networks
that took turns with a third, quotients of those. FLOPs and FLOPS are multiply-adds, as in the paper. What the paper is
at odds with itself about is in the footnotes.
"""


def claims_page(evidence: Evidence, out: Path) -> str:
    """Return the page as markdown, with links to the files as they are seen from `out`."""
    verdicts, numbers, sections, cited = Counter(), {}, [], set()
    for title, claims in SECTIONS.items():
        lines = [f'## {title}', '', '| claim | the paper | found here | verdict |', '| --- | --- | --- | --- |']
        for claim in claims:
            found = claim.find(evidence)
            cited |= {one.path for one in found}
            verdicts[_overall(claim, found)] += 1
            lines.append(_row(claim, found, numbers, out))
        sections.append('\n'.join(lines))
    said = ', '.join(f'{number} *{verdict}*' for verdict, number in verdicts.most_common())
    words = dict(holds=HOLDS, smaller=SMALLER, noise=NOISE, fails=FAILS)
    head = _HEAD.format(**words, not_measured=NOT_MEASURED, untestable=UNTESTABLE)
    notes = [f'{number}. {escaped(_NOTES[key])}' for key, number in numbers.items()]
    parts = [head.rstrip(), f'{sum(verdicts.values())} rows: {said}.', *sections]
    parts += ['## Footnotes\n\n' + '\n'.join(notes)] if notes else []
    return '\n\n'.join([*parts, _files(evidence, cited, out)]) + '\n'


def _overall(claim: Claim, found: list[Finding]) -> str:
    if not found:
        return NOT_MEASURED if claim.testable else UNTESTABLE
    verdicts = dict.fromkeys(one.verdict for one in found)
    return next(iter(verdicts)) if len(verdicts) == 1 else _DIFFERS


def _row(claim: Claim, found: list[Finding], numbers: dict[str, int], out: Path) -> str:
    marks = ','.join(str(numbers.setdefault(key, len(numbers) + 1)) for key in claim.notes)
    text = f'{escaped(claim.text)} ({escaped(claim.place)})' + (f' <sup>{marks}</sup>' if marks else '')
    overall = _overall(claim, found)
    here = _shown(found, overall == _DIFFERS, out) or (claim.needs if '`' in claim.needs else f'`{claim.needs}`')
    return f'| {text} | {escaped(claim.paper)} | {here} | **{overall}** |'


def _shown(found: list[Finding], each: bool, out: Path) -> str:
    """Return what was found, by file, with a verdict for each finding where they differ."""
    groups, lines = {}, []
    for one in found:
        groups.setdefault((one.where, one.path, one.date), []).append(one)
    for (where, path, date), of in groups.items():
        said = [
            ': '.join(filter(None, [one.how, escaped(one.text)])) + (f', **{one.verdict}**' if each else '')
            for one in of
        ]
        start = f'[{escaped(where)}, {date}]({_link(path, out)})' if path else where
        lines.append(f'{start}: {said[0]}' if len(said) == 1 else '<br>- '.join([f'{start}:', *said]))
    return '<br>'.join(lines)


def _link(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path, out.parent)).as_posix()


def _files(evidence: Evidence, cited: set[Path], out: Path) -> str:
    """Return a table of the files that rows cite, with the machine's load, and what is said of all in a file."""
    lines = [
        '## Files',
        '',
        '| file | what | torch | date | load | of all in it |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    rows = []
    for path, report in evidence.reports:
        machine, models = report.environment.before, report.models
        labels = (
            [label for label in models[0].labels if all(label in model.labels for model in models)] if models else []
        )
        labels += [] if report.complete else ['INCOMPLETE: the run had not ended']
        what = report.suite or ', '.join(model.name for model in models)
        rows.append((path, what, report.created, machine.packages, machine.host.load_average, labels))
    for path, study in evidence.studies:
        what, machine = f'{study["study"]}: {study["model"]}', study['environment']
        load = machine['host']['load_average']
        rows.append((path, what, study['created'], machine['packages'], load, study['labels']))
    for path, what, created, packages, load, labels in rows:
        if path in cited:
            cells = [f'[{path.stem}]({_link(path, out)})', escaped(what), packages.get('torch', ''), created[:10]]
            cells += ['' if load is None else f'{load:.2f}', escaped('; '.join(labels))]
            lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)
