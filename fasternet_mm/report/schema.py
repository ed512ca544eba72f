"""What a report holds, as dataclasses that are read from JSON and written to it.

docs/report_schema.md says what each class and field means, in which unit; a test holds the two together.
"""

import dataclasses
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import UserError

SCHEMA = 'fasternet_mm.report/1'


@dataclass(frozen=True)
class Mode:
    """Say what a mode does to a network, and what it takes."""

    form: str = 'trained'  # 'trained', 'fused' (BN folded into convolutions) or 'deploy'
    compiler: str | None = None  # the `mode` of torch.compile
    cuda_graphs: bool = False  # replays what a GPU was told once
    runtime_dtypes: tuple[str, ...] = ()  # in which a program other than torch runs the network on a CPU

    @property
    def plain(self) -> bool:
        """Return whether it is a mere form: its accuracy can be evaluated and a detector's time split."""
        return not (self.compiler or self.cuda_graphs or self.runtime_dtypes)


MODES = {
    'eager': Mode(),
    'fused': Mode('fused'),
    'deploy': Mode('deploy'),
    'graphs': Mode('deploy', cuda_graphs=True),
    'compile': Mode(compiler='default'),
    'compile-max-autotune': Mode(compiler='max-autotune'),
    'compile-reduce-overhead': Mode(compiler='reduce-overhead', cuda_graphs=True),
    'onnxruntime': Mode('deploy', runtime_dtypes=('fp32',)),
    'openvino': Mode('deploy', runtime_dtypes=('fp32', 'bf16', 'int8')),
}


@dataclass
class Latency:
    """Hold the milliseconds of the calls of one measurement."""

    mean: float
    p10: float
    p50: float
    p90: float
    p99: float
    n: int
    warmup: int
    samples: list[float]


@dataclass
class Evaluation:
    """Hold what a config's own evaluator says."""

    metrics: dict[str, float]
    images: int
    dataset: str | None
    labels: list[str]
    error: str | None = None


@dataclass
class Agreement:
    """Hold how a form's detections compare with those of eager fp32 on the same images."""

    wanted: int
    found: int
    matched: int
    box: float
    score: float

    @property
    def off(self) -> float:
        """Return the share of the detections of both that have no match."""
        return 1 - 2 * self.matched / (self.wanted + self.found) if self.wanted + self.found else 0.0


@dataclass
class Measurement:
    """Hold what one way of running one model took."""

    scope: str
    mode: str
    dtype: str
    device: str
    batch_size: int
    shape: list[int]
    channels_last: bool
    threads: int
    difference: float | None = None
    error: str | None = None
    unsupported: bool = False
    latency_ms: Latency | None = None
    cuda_event_ms: Latency | None = None
    throughput: float | None = None
    peak_memory: int | None = None
    peak_memory_of: str | None = None
    detections: float | None = None
    agreement: Agreement | None = None
    file_size: int | None = None
    evaluation: Evaluation | None = None
    labels: list[str] = field(default_factory=list)


@dataclass
class MultiplyAdds:
    """Hold the multiply-adds of one image."""

    total: int
    parts: dict[str, int]
    shape: list[int]
    convention: str
    table4: int | None = None


@dataclass
class Published:
    """Hold what was published of a row of a suite."""

    network: str | None = None
    backbone: str | None = None
    params_m: float | None = None
    gflops: float | None = None
    gflops_1280x800: float | None = None
    gpu_fps: float | None = None
    gpu_ms: float | None = None
    cpu_ms: float | None = None
    arm_ms: float | None = None
    top1: float | None = None
    box_ap: float | None = None
    box_ap50: float | None = None
    box_ap75: float | None = None
    mask_ap: float | None = None
    mask_ap50: float | None = None
    mask_ap75: float | None = None
    source: str | None = None
    hardware: str | None = None
    note: str | None = None


@dataclass
class Split:
    """Hold the milliseconds of a detection by part."""

    shape: list[int]
    parts: dict[str, float]
    total_ms: float
    whole_ms: float
    disagreement: float
    labels: list[str]


@dataclass
class Layer:
    """Hold what one layer of a backbone achieved."""

    name: str
    kind: str
    ms: float
    gflops: float
    flops_per_byte: float | None
    share: float


@dataclass
class Roofline:
    """Hold a backbone's layers, and what arithmetic and memory alone would take."""

    matmul_gflops: float
    copy_gb_per_s: float
    arithmetic_floor_ms: float
    memory_floor_ms: float
    layers: list[Layer]
    device: str
    dtype: str
    batch_size: int
    mode: str = 'eager'


@dataclass
class Model:
    """Hold all that is known of one model."""

    name: str
    kind: str
    operator: str | None = None
    config: str | None = None
    config_sha256: str | None = None
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    labels: list[str] = field(default_factory=list)
    published: Published | None = None
    complete: bool = False
    error: str | None = None
    parameters: int = 0
    multiply_adds: MultiplyAdds | None = None
    memory_access: int | None = None
    deviations: list[str] = field(default_factory=list)
    evaluation: Evaluation | None = None
    measurements: list[Measurement] = field(default_factory=list)
    split: Split | None = None
    rooflines: list[Roofline] = field(default_factory=list)


@dataclass
class Side:
    """Refer to one of the two measurements that are compared."""

    model: str
    mode: str
    dtype: str

    def named(self, other: 'Side') -> str:
        """Return the model's name, with its mode and dtype in brackets where the other side has others."""
        how = [self.mode] if (self.mode, self.dtype) != (other.mode, other.dtype) else []
        how += [self.dtype] if self.dtype != other.dtype else []
        return f'{self.model} [{" ".join(how)}]' if how else self.model


@dataclass
class Comparison:
    """Hold how many times as long one side took as the other, in turn."""

    scope: str
    mode: str
    dtype: str
    batch_size: int
    a: str
    b: str
    side_a: Side
    side_b: Side
    ratio: float
    interval: list[float]
    verdict: str


@dataclass
class Missing:
    """Name a row of a suite that no installed package builds."""

    name: str
    reason: str
    published: Published | None


@dataclass
class Host:
    """Describe the computer."""

    platform: str
    cpu: str
    cores: int
    load_average: float | None


@dataclass
class Gpu:
    """Describe the GPU."""

    name: str
    cuda: str | None = None
    cudnn: int | None = None
    tf32: bool | None = None
    driver: str | None = None
    sm_clock_mhz: float | None = None
    max_sm_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    utilization_percent: float | None = None
    throttle_reasons: int | None = None


@dataclass
class Git:
    """Name the revision of the clone that measured."""

    revision: str
    dirty: bool


@dataclass
class Snapshot:
    """Describe the machine and its software at one time."""

    host: Host
    threads: int
    python: str
    packages: dict[str, str]
    git: Git | None
    gpu: Gpu | None


@dataclass
class Environment:
    """Hold the machine before the first measurement and after the last."""

    before: Snapshot
    after: Snapshot | None = None


@dataclass
class Report:
    """Hold everything that one run found."""

    created: str
    command: list[str]
    options: dict[str, object]
    environment: Environment
    suite: str | None = None
    schema: str = SCHEMA
    complete: bool = False
    missing: list[Missing] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)


def to_json(report: Report) -> dict:
    """Return a report as JSON's dicts, lists and scalars."""
    return dataclasses.asdict(report)


def from_json(data: object, source: str) -> Report:
    """Build a report from what json.loads returns.

    Raises:
        UserError: Names `source` and the first field that is unknown, missing or of another type.
    """
    schema = data.get('schema') if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise UserError(f'{source} has schema {schema!r}, not {SCHEMA!r}; measure again with this tools/report.py')
    try:
        return read(Report, data, 'report')
    except UserError as error:
        raise UserError(f'{source}: {error}; measure again with this tools/report.py') from error


def read(kind: Any, value: Any, place: str) -> Any:
    """Return a value of JSON as one of a dataclass, list, dict or scalar; `place` names it in errors.

    Raises:
        UserError: If it, or anything in it, is of another type, or a field is unknown or missing.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else read(inner[0], value, place)
    typed = dataclasses.is_dataclass(kind)
    if not isinstance(value, dict if typed else (int, float) if kind is float else origin or kind):
        raise UserError(f'{place} is {value!r:.40}, expected {kind.__name__}')
    if origin is list:
        return [read(inner[0], one, f'{place}[{number}]') for number, one in enumerate(value)]
    if origin is dict:
        return {key: read(inner[1], one, f'{place}.{key}') for key, one in value.items()}
    return _read_fields(kind, value, place) if typed else value


def _read_fields(kind: type, value: dict, place: str) -> Any:
    value = _EARLIER.get(kind, dict)(value)
    known = get_type_hints(kind)
    sparse = kind in (Published, Gpu)
    optional = {one.name for one in dataclasses.fields(kind) if sparse and one.default is None}
    for name in sorted((value.keys() ^ known.keys()) - optional):
        raise UserError(f'{place} has {"an unknown" if name in value else "no"} field {name!r}')
    return kind(**{name: read(known[name], one, f'{place}.{name}') for name, one in value.items()})


def _earlier_comparison(value: dict) -> dict:
    """Add the sides that files before 0.2.0 say in `a` and `b` alone, as NAME, NAME [MODE] or NAME [MODE DTYPE]."""
    sides = {}
    for side in 'ab':
        name, _, how = str(value.get(side)).removesuffix(']').partition(' [')
        said = dict(zip(('mode', 'dtype'), how.split()))
        sides[f'side_{side}'] = dict(model=name, mode=value.get('mode'), dtype=value.get('dtype')) | said
    return sides | value


def _earlier_measurement(value: dict) -> dict:
    """Add what 0.3.0 measures, and what files before 0.2.0 say in the error alone: that the mode is not for this."""
    unsupported = str(value.get('error')).startswith(f'mode {value.get("mode")}')
    later = dict.fromkeys(('detections', 'agreement', 'file_size', 'evaluation'))
    return later | dict(unsupported=unsupported) | value


def _earlier_model(value: dict) -> dict:
    """Add what 0.3.0 counts."""
    return dict(operator=None, memory_access=None) | value


def _earlier_roofline(value: dict) -> dict:
    """Add the mode, which was eager in all files before 0.3.0."""
    return dict(mode='eager') | value


_EARLIER = {
    Comparison: _earlier_comparison,
    Measurement: _earlier_measurement,
    Model: _earlier_model,
    Roofline: _earlier_roofline,
}
