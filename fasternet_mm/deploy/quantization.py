"""An exported file in int8, for OpenVINO: calibrated by NNCF, measured, and written only if it is good enough."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..files import partial_path, remove_leftovers
from ..machine import instruction_sets, processor
from .likeness import difference, match
from .onnx import require_packages
from .runtime import compiled_by_openvino, metadata_of, openvino_core

if TYPE_CHECKING:
    import openvino

_LAYERS = ('Convolution', 'GroupConvolution', 'MatMul')
_PARTS = 16
_KEPT_PARTS = (0, 1, 2, 4, 8)
_RANKED_ON = 4  # images
_HEADLINES = (('segm_mAP', 100), ('bbox_mAP', 100), ('mAP', 100), ('top1', 1))  # in points of 100


def quantize(file: str | Path | bytes, inputs: Sequence[np.ndarray], keep: Collection[str] = ()) -> 'openvino.Model':
    """Return an exported file with its convolutions and matrix products in int8.

    Weights have a scale for each channel, activations one for a tensor and a zero point. All else stays in floating
    point: the normalisation of pixels, and what is computed on boxes and scores.

    Args:
        file (str | Path | bytes): An ONNX file of ``tools/export.py``.
        inputs (Sequence[np.ndarray]): Inputs as the file takes them, on which the scales are measured, one at a time.
        keep (Collection[str]): Layers, of :func:`layers_of`, that stay in floating point, too.

    Raises:
        UserError: If nncf or openvino is missing, or the file cannot be read.
    """
    require_packages('nncf', 'openvino')
    os.environ.setdefault('NNCF_CI', '1')  # else it reports each use to its makers
    import nncf
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    nncf.set_log_level(logging.ERROR)
    model = read(file)
    ignored = nncf.IgnoredScope(
        names=sorted({*keep, *_not_between_layers(model)}),
        types=['ROIAlign'],
        validate=False,
    )
    # extremes over all images: the least and largest of no RoI, in an image without, are the ends of float32
    least = StatisticsCollectorParameters(StatisticsType.MIN, AggregatorType.MIN)
    largest = StatisticsCollectorParameters(StatisticsType.MAX, AggregatorType.MAX)
    with np.errstate(over='ignore', invalid='ignore'):
        quantized = nncf.quantize(
            model,
            nncf.Dataset(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
            ignored_scope=ignored,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParameters(least, largest),
                disable_bias_correction=True,  # a mean over no RoI is not a number; it changed nothing
            ),
        )
    for op in quantized.get_ops():
        if op.get_type_name() == 'FakeQuantize':
            low, high = (op.input_value(place).get_node().get_data() for place in (1, 2))
            if not (low < high).all():
                raise UserError(
                    f'nothing came to {op.input_value(0).get_node().get_friendly_name()} in {len(inputs)} images, as '
                    'where nothing is detected: calibrate on images with objects, or export with a lower score '
                    'threshold'
                )
    return quantized


def quantize_file(
    file: Path,
    out: Path,
    inputs: Sequence[np.ndarray],
    measure: Callable[[Path], dict[str, float]] | None = None,
    max_drop: float | None = None,
    say: Callable[[str], None] = print,
) -> dict:
    """Write an exported file in int8 as OpenVINO's .xml and .bin, with what is known of its accuracy.

    Args:
        file (Path): An ONNX file of ``tools/export.py``.
        out (Path): The .xml.
        inputs (Sequence[np.ndarray]): As the file takes them, on which it is calibrated.
        measure (Callable, optional): Gives the metrics of a file. Without it the accuracy is not measured, and how far
            the outputs for `inputs` are from those of `file` is said.
        max_drop (float, optional): How many points of 100 of the metric that counts may be lost. Where more are, 1, 2,
            4 and 8 of 16 parts of the network stay in floating point, those first that change the outputs most.
        say (Callable): Takes lines on how far it is.

    Returns:
        dict: What the file says of this in its metadata, under `int8`.

    Raises:
        UserError: If more is lost even so, or if nncf or openvino is missing; nothing is written then.
    """
    metadata, before = metadata_of(read(file)), measure(file) if measure else None
    if before is not None:
        name, points = headline(before)
        say(f'{file}: {_told(before)}')
    say(f'calibrating on {len(inputs)} images')
    whole = model = quantize(file, inputs)
    layers, kept, ranked = layers_of(read(file)), [], []
    with _draft(out) as draft:
        for count in [count for count in _KEPT_PARTS if count < min(_PARTS, len(layers))]:
            if count:
                ranked = ranked or by_damage(file, whole, inputs[:_RANKED_ON])
                kept = [layer for _, part in ranked[:count] for layer in part]
                model = quantize(file, inputs, kept)
            facts = dict(
                nncf=version('nncf'),
                images=len(inputs),
                processor=f'{processor()}, {instruction_sets()}',
                floating_point=kept,
            )
            _save(model, draft, metadata)
            if before is None:
                say(f'accuracy not measured; {compared(read(file), model, inputs)}')
                facts |= dict(accuracy='accuracy not measured')
                break
            after = measure(draft)
            say(f'int8, {len(kept)} of {len(layers)} layers in floating point: {_told(after)}')
            facts |= dict(accuracy=dict(before=before, after=after))
            drop = round(points - headline(after)[1], 9)  # 41.6 less 41.1 is 0.5
            if max_drop is None or drop <= max_drop:
                break
        else:
            raise UserError(
                f'{name} drops by {drop:.2f} points with {len(kept)} of {len(layers)} layers in floating point, more '
                f'than --max-drop {max_drop:g}: {out} is not written; allow more, or calibrate on more images'
            )
        _save(model, draft, metadata | dict(int8=json.dumps(facts)))
        _publish(draft, out)
    return facts


def headline(metrics: Mapping[str, float]) -> tuple[str, float]:
    """Return the name of the metric that counts, mask AP, else box AP, else top-1, and its value in points of 100.

    Raises:
        UserError: If the evaluator gives none of them.
    """
    for ending, points in _HEADLINES:
        for name, value in metrics.items():
            if name.split('/')[-1] == ending:
                return name, value * points
    known = ', '.join(ending for ending, _ in _HEADLINES)
    raise UserError(f'test_evaluator gives {", ".join(metrics) or "no metric"}; expected one of {known}')


def _told(metrics: Mapping[str, float]) -> str:
    """Return the metrics that count, for people."""
    told = {name: value for name, value in metrics.items() if name.split('/')[-1] in dict(_HEADLINES)}
    return ', '.join(f'{name} {value:.4g}' for name, value in told.items())


def compared(model: 'openvino.Model', quantized: 'openvino.Model', inputs: Sequence[np.ndarray]) -> str:
    """Return a line on how far the outputs of `quantized` are from those of `model`."""
    before, after = run_in_openvino(model), run_in_openvino(quantized)
    off, found, again, new = [], 0, 0, 0
    for image in inputs:
        got, want = after(image), before(image)
        off.append(difference(got, want))
        if 'boxes' in want:
            same = len(match(got, want))
            found, again, new = found + len(want['boxes']), again + same, new + len(got['boxes']) - same
    if 'boxes' not in want:
        return f'outputs off by {np.mean(off):.2g} relative on average'
    return f'{again} of {found} detections found again, {new} new ones, likeness {1 - np.mean(off):.3f}'


def read(file: str | Path | bytes) -> 'openvino.Model':
    """Return an ONNX file, or an .xml with its .bin, as OpenVINO reads it.

    Raises:
        UserError: If openvino is missing, or the file cannot be read.
    """
    require_packages('openvino')
    try:
        return openvino_core().read_model(file)
    except RuntimeError as error:
        raise UserError(f'{file} cannot be read by OpenVINO; expected an ONNX file of tools/export.py') from error


def write(model: 'openvino.Model', out: Path, metadata: Mapping[str, str]) -> None:
    """Write a model as an .xml and the .bin beside it, which get their names when both are whole.

    Args:
        model (openvino.Model): Of :func:`quantize`.
        out (Path): The .xml.
        metadata (Mapping[str, str]): What it says of itself.
    """
    with _draft(out) as draft:
        _save(model, draft, metadata)
        _publish(draft, out)


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """Make a folder beside `out` for an .xml that may become `out`; remove it in the end."""
    remove_leftovers(out.parent)  # of a kill
    folder = partial_path(out)
    folder.mkdir(parents=True)
    try:
        yield folder / 'model.xml'
    finally:
        shutil.rmtree(folder)


def _save(model: 'openvino.Model', file: Path, metadata: Mapping[str, str]) -> None:
    import openvino

    model.set_rt_info(dict(metadata), ['fasternet_mm'])
    paths = (file, file.with_suffix('.bin'))
    for path in paths:
        path.unlink(missing_ok=True)  # never into a file that may still be mapped into memory
    try:
        openvino.save_model(model, file, compress_to_fp16=False)
    except RuntimeError as error:
        raise UserError(f'{file} cannot be written whole, as where a disk is full: {error}') from error
    for path in paths:
        with open(path, 'rb') as written:
            os.fsync(written.fileno())


def _publish(draft: Path, out: Path) -> None:
    os.replace(draft.with_suffix('.bin'), out.with_suffix('.bin'))
    os.replace(draft, out)


def run_in_openvino(model: 'openvino.Model') -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a call that runs a model on the CPU, in fp32 where it is not int8, and gives its outputs by name."""
    compiled = compiled_by_openvino(model)
    names = [output.get_any_name() for output in compiled.outputs]
    return lambda image: dict(zip(names, (out.copy() for out in compiled(image).values())))


def layers_of(model: 'openvino.Model') -> list[str]:
    """Return the names of a model's layers with weights, in the order of execution."""
    return [op.get_friendly_name() for op in _layers(model)]


def _layers(model: 'openvino.Model') -> list['openvino.Node']:
    return [op for op in model.get_ordered_ops() if _has_weights(op)]


def by_damage(
    file: str | Path | bytes, quantized: 'openvino.Model', inputs: Sequence[np.ndarray]
) -> list[tuple[float, list[str]]]:
    """Return the parts of a quantized model, the one first that does most good where it alone is in floating point.

    Args:
        file (str | Path | bytes): What was quantized.
        quantized (openvino.Model): Of :func:`quantize`.
        inputs (Sequence[np.ndarray]): Inputs.

    Returns:
        list[tuple[float, list[str]]]: What is left of :func:`difference`, a mean over inputs, and the names of the
        part's layers; the parts are at most 16, of as many layers that follow one another.
    """
    model = read(file)
    layers, run = layers_of(model), run_in_openvino(model)
    wanted = [run(sample) for sample in inputs]
    found = []
    for part in np.array_split(layers, min(_PARTS, len(layers))):
        run = run_in_openvino(_restored(quantized, model, set(part)))
        left = np.mean([difference(run(sample), want) for sample, want in zip(inputs, wanted)])
        found.append((float(left), part.tolist()))
    return sorted(found)


def _restored(quantized: 'openvino.Model', model: 'openvino.Model', layers: Collection[str]) -> 'openvino.Model':
    """Return a copy of `quantized` in which `layers` compute in floating point with the weights of `model`."""
    restored, weights = quantized.clone(), {op.get_friendly_name(): op.input_value(1) for op in _layers(model)}
    for op in restored.get_ops():
        if op.get_friendly_name() in layers:
            _take_scales_out(op.input(0))
            op.input(1).replace_source_output(weights[op.get_friendly_name()])
    return restored


def _take_scales_out(place: 'openvino.Input') -> None:
    source = place.get_source_output().get_node()
    if source.get_type_name() == 'FakeQuantize':
        place.replace_source_output(source.input_value(0))
    elif source.get_type_name() in ('Concat', 'Reshape'):
        for value in source.inputs():
            _take_scales_out(value)


def _not_between_layers(model: 'openvino.Model') -> list[str]:
    """Return the names of the operators whose values do not go from one layer to another: of pixels, boxes, scores."""
    ops = model.get_ordered_ops()
    after, before = set(), set()  # names of what is computed from a layer, and of what a layer is computed from
    for op in ops:
        if _has_weights(op) or not after.isdisjoint(_sources(op)):
            after.add(op.get_friendly_name())
    for op in reversed(ops):
        if _has_weights(op) or op.get_friendly_name() in before:
            before.update(_sources(op))
    # not a bias either, which NNCF takes together with its layer
    return [
        op.get_friendly_name()
        for op in ops
        if op.get_type_name() not in ('Constant', 'Parameter', 'Result')
        and not (_has_weights(op) or op.get_friendly_name() in after & before)
        and not (op.get_type_name() == 'Add' and any(_has_weights(value.get_node()) for value in op.input_values()))
    ]


def _sources(op: 'openvino.Node') -> list[str]:
    """Return the names of what an operator's features come from: not its RoIs, indices or shapes."""
    inputs = op.input_values()[: 1 if op.get_type_name() == 'ROIAlign' else None]
    return [value.get_node().get_friendly_name() for value in inputs if value.get_element_type().is_real()]


def _has_weights(op: 'openvino.Node') -> bool:
    return op.get_type_name() in _LAYERS and _is_constant(op.input_value(1).get_node())


def _is_constant(node: 'openvino.Node') -> bool:
    return node.get_type_name() == 'Constant' or (
        node.get_type_name() in ('Convert', 'Reshape', 'Transpose') and _is_constant(node.input_value(0).get_node())
    )
