"""What a report of table 1 shows beside its times: arithmetic a second, the roof above it, and who is faster."""

from collections import defaultdict
from collections.abc import Iterator
from statistics import mean

from ..schema import Measurement, Model, Published, Report

_FORMS = ('PConv', 'PConv slicing', 'PConv in place')
_DEVICES = {'gpu_fps': 'GPU', 'cpu_ms': 'CPU', 'arm_ms': 'ARM'}  # of the paper


def gmacs(model: Model, m: Measurement) -> float | None:
    """Return 10^9 multiply-adds a second."""
    if not (model.multiply_adds and m.latency_ms):
        return None
    return m.batch_size * model.multiply_adds.total / m.latency_ms.p50 / 1e6


def place(model: Model, m: Measurement) -> tuple[float, float] | None:
    """Return a layer's FLOP per byte, and from how many on arithmetic is the lower roof; None without a roofline."""
    for one in model.rooflines:
        if (one.dtype, one.batch_size) == (m.dtype, m.batch_size):
            layer = next((layer for layer in one.layers if layer.flops_per_byte), None)
            return layer and (layer.flops_per_byte, one.matmul_gflops / one.copy_gb_per_s)
    return None


def quotients(published: Published) -> dict[str, float]:
    """Return the arithmetic a second that follows from published times and multiply-adds, in GMAC/s."""
    seconds = {'GPU': published.gpu_fps and 1 / published.gpu_fps}
    seconds |= {'CPU': (published.cpu_ms or 0) / 1e3, 'ARM': (published.arm_ms or 0) / 1e3}
    return {f'{device} GMAC/s': float(f'{published.gflops / s:.4g}') for device, s in seconds.items() if s}


def findings(report: Report) -> Iterator[str]:
    """Yield sentences on what the stacks show together, here and in the paper."""
    models = [model for model in report.models if model.kind == 'operator']
    times, speeds = defaultdict(dict), defaultdict(lambda: defaultdict(list))
    for model in models:
        for m in model.measurements:
            if m.latency_ms:
                way = f'{m.mode} {m.dtype}, batch {m.batch_size}'
                times[way][model.operator, tuple(m.shape)] = m.latency_ms.p50
                speeds[way][model.operator].append(gmacs(model, m) or 0.0)
    for way, of in speeds.items():
        yield f'{way}: mean GMAC/s ' + ', '.join(f'{operator} {mean(found):.3g}' for operator, found in of.items())
    for way, found in times.items():
        sizes = [size for operator, size in found if operator == 'DWConv' and ('PConv', size) in found]
        if sizes:
            yield f'{way}: in time {_who_wins(report, way, found, sizes)}'
    yield from _of_the_paper({model.name: model for model in models if model.published})
    shares = defaultdict(list)
    for model in models:
        if model.memory_access:
            shares[model.operator].append(100 * model.parameters / model.memory_access)
    if shares:
        said = ', '.join(f'{operator} {min(of):.1f} to {max(of):.1f} %' for operator, of in shares.items())
        yield f'the share of weights in the memory access, which the right sides of equations 2, 3 and 5 drop: {said}'


def _who_wins(report: Report, way: str, found: dict, sizes: list) -> str:
    """Say how often DWConv takes less time than PConv, and than the fastest of its forms."""
    named = {(model.operator, model.name) for model in report.models}
    verdicts = [
        one.verdict for one in report.comparisons
        if ('DWConv', one.side_a.model) in named and ('PConv', one.side_b.model) in named
        and f'{one.side_a.mode} {one.dtype}, batch {one.batch_size}' == way and one.side_a.mode == one.side_b.mode
    ]  # fmt: skip
    won, unclear = verdicts.count('a is faster'), verdicts.count('within the noise')
    fastest = {size: min(found[form, size] for form in _FORMS if (form, size) in found) for size in sizes}
    best = sum(found['DWConv', size] < fastest[size] for size in sizes)
    text = f'DWConv beats PConv at {won} of {len(verdicts)} sizes' + (f', {unclear} within the noise' * bool(unclear))
    return f'{text}; by medians it beats the fastest form of PConv at {best} of {len(sizes)}'


def _of_the_paper(models: dict[str, Model]) -> Iterator[str]:
    pairs = defaultdict(dict)
    for model in models.values():
        if model.multiply_adds:
            pairs[tuple(model.multiply_adds.shape)][model.operator] = model.published
    pairs = [(of['DWConv'], of['PConv']) for of in pairs.values() if {'DWConv', 'PConv'} <= of.keys()]
    if pairs:
        wins = []
        for field, device in _DEVICES.items():
            sign = -1 if field.endswith('fps') else 1
            won = sum(sign * getattr(dw, field) < sign * getattr(pconv, field) for dw, pconv in pairs)
            wins.append(f'{won} of {len(pairs)} on its {device}')
        yield f"the paper's figures: DWConv beats PConv in time at {', '.join(wins)}, which its text does not say"
