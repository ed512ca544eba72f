"""A study as GitHub's markdown."""

from dataclasses import asdict

from ..report.render.markdown import escaped, rendered
from ..report.render.tables import Block, Cell, flat, number, shown
from .schema import ApproximatedLayer, Approximation, Features, Fit, Redundancy, Salient, Study

_TITLES = dict(
    approximation='How near do cheap operators come to regular 3x3 convolutions?',
    salient='Where are 3x3 filters largest?',
    redundancy='How much do feature maps repeat one another?',
    features='What does the network see?',
)


def markdown(study: Study) -> str:
    """Return a study as markdown, with the machine at its end."""
    packages = study.environment.packages
    facts = [study.model, *([f'weights {study.checkpoint}'] if study.checkpoint else [])]
    facts += [f'{study.images.number} pictures of {study.images.folder}'] if study.images else []
    facts += [f'torch {packages.get("torch")}', study.created]
    lines = [f'# {_TITLES[study.study]}', escaped('; '.join(facts)), escaped(' '.join(study.command))]
    lines += [f'**{escaped(label)}**' for label in study.labels]
    machine = [[Cell(key), Cell(shown(value))] for key, value in flat(asdict(study.environment)).items()]
    blocks = [*_BLOCKS[study.study](study.result), Block('Environment', ['', ''], machine)]
    return '\n\n'.join([*filter(None, lines), rendered(blocks)])


def _cells(*texts: object) -> list[Cell]:
    return [Cell(number(text) if isinstance(text, float) else str(text)) for text in texts]


def _between(interval: list[float]) -> str:
    return f'[{number(interval[0])}, {number(interval[1])}]'


def _approximation(result: Approximation) -> list[Block]:
    blocks = [_layer_block(layer) for layer in result.layers]
    names = list(dict.fromkeys(one.name for layer in result.layers for one in layer.substitutes))
    rows = []
    for name in names:
        of = [one for layer in result.layers for one in layer.substitutes if one.name == name]
        if len(of) == len(result.layers):
            means = [_mean([fit.test_error for fit in fits if fit]) for fits in
                     ([one.optimum for one in of], [one.trained for one in of])]  # fmt: skip
            rows.append(_cells(name, means[0], '-' if means[1] is None else means[1]))
    return [
        Block('Mean over the layers', ['substitute', 'test error, optimum', 'test error, Adam'], rows),
        *blocks,
    ]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _layer_block(layer: ApproximatedLayer) -> Block:
    rows = [_cells('the convolution itself', '', '', '', '', '', '', layer.parameters, layer.multiply_adds / 1e6,
                   layer.latency_ms.p50)]  # fmt: skip
    hows = {}
    for one in layer.substitutes:
        row = [one.name]
        for fit in (one.optimum, one.trained):
            row += ['-', '-', '-'] if fit is None else _of_fit(fit)
            if fit:
                hows.setdefault(fit.how, []).append(one.name)
        rows.append(_cells(*row, one.parameters, one.multiply_adds / 1e6, one.latency_ms.p50))
    rows += [_cells(name, reason, *[''] * 8) for name, reason in layer.missing.items()]
    ways = [f'{what}, {way}' for way in ('optimum', 'Adam') for what in ('train error', 'test error', 'to PConv')]
    channels, size = (' x '.join(map(str, pair)) for pair in (layer.channels, layer.size))
    counts = ', '.join(f'{layer.rows[part]} pixels of {layer.images[part]} images ({part})' for part in layer.rows)
    told = (
        f'{channels} channels, {size} pixels out, stride {layer.stride}; variance {number(layer.variance)}; {counts}.'
    )
    columns = ['substitute', *ways, 'parameters', 'multiply-adds (M)', 'ms']
    fits = [f'{", ".join(names)}: {how}.' for how, names in hows.items()]
    return Block(layer.name, columns, rows, [told, *layer.labels, *fits])


def _of_fit(fit: Fit) -> list[str]:
    error, ratio = f'{number(fit.test_error)} {_between(fit.interval)}', number(fit.ratio)
    return [number(fit.train_error), error, f'{ratio} {_between(fit.ratio_interval)}']


def _salient(result: Salient) -> list[Block]:
    positions = [f'{row} {column}' for row in ('top', 'middle', 'bottom') for column in ('left', 'middle', 'right')]
    positions[4] = 'centre'
    counts, energy = [], []
    for stage in result.stages:
        shares = [100 * count / stage.filters for count in stage.counts]
        counts.append(_cells(stage.name, stage.filters, *shares))
        energy.append(_cells(stage.name, stage.filters, *[100 * share for share in stage.energy]))
    layers = [[Cell(f'{stage.name}: {", ".join(stage.layers)}')] for stage in result.stages]
    columns = ['stage', 'filters', *positions]
    return [
        Block('Filters that are largest there, %', columns, counts, ['Chance is 11.1 %.']),
        Block("Share of the filters' squared weights, mean, %", columns, energy),
        Block('Layers', [], layers),
    ]


def _redundancy(result: Redundancy) -> list[Block]:
    rows = []
    for layer in result.layers:
        low, middle, high = map(number, layer.correlation)
        size, share = ' x '.join(map(str, layer.size)), f'{number(100 * layer.components / layer.channels)} %'
        rows.append(_cells(layer.name, layer.channels, size, layer.rows, layer.constant, f'{middle} ({low} to {high})',
                           f'{layer.components} ({share})', 100 * layer.explained))  # fmt: skip
    columns = ['maps that this layer sees', 'channels', 'pixels', 'pixels that entered', 'constant channels',
               'largest correlation, median (quartiles)', 'components for 90 % of the variance',
               'variance of the others that the first quarter explains, %']  # fmt: skip
    told = ', '.join(f'{number} ({part})' for part, number in result.images.items())
    return [Block('By layer', columns, rows, [f'Images: {told}; the last column is of the test images.'])]


def _features(result: Features) -> list[Block]:
    columns = ['layer', 'method', 'channels, height, width', 'mean', 'of the map in boxes', 'of the picture', 'file']
    maps = {}
    for one in (one for seen in result.pictures for one in seen.maps if one.inside is not None):
        maps.setdefault((one.layer, one.method), []).append(one)
    means = []
    for key, ones in maps.items():
        shares = (_percent(_mean([getattr(one, name) for one in ones])) for name in ('inside', 'area'))
        means.append(_cells(*key, len(ones), *shares))
    blocks = []
    if means and len(result.pictures) > 1:
        told = 'Of the pictures where the map is not 0 everywhere.'
        blocks.append(Block('Mean over the pictures', ['layer', 'method', 'pictures', *columns[4:6]], means, [told]))
    for seen in result.pictures:
        rows = []
        for one in seen.maps:
            shape, shares = ' x '.join(map(str, one.shape)), map(_percent, (one.inside, one.area))
            rows.append(_cells(one.layer, one.method, shape, one.mean, *shares, one.file or '0 everywhere'))
        found = ', '.join(f'{one.name} {one.score:.2f}' for one in seen.found) or 'nothing'
        remarks = [f'Found: {found}.', *([f'{seen.note}.'] if seen.note else [])]
        blocks.append(Block(f'{seen.picture}, {seen.size[0]} x {seen.size[1]}', columns, rows, remarks))
    return blocks


def _percent(share: float | None) -> str:
    return '-' if share is None else f'{number(100 * share)} %'


_BLOCKS = dict(approximation=_approximation, salient=_salient, redundancy=_redundancy, features=_features)
