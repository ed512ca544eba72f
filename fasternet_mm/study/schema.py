"""What a study holds, as dataclasses that are read from JSON and written to it; docs/study.md says what they mean."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..files import read_json
from ..report.schema import Latency, Snapshot, read

SCHEMA = 'fasternet_mm.study/1'


@dataclass
class Fit:
    """Hold how near a substitute comes to a layer, fitted in one way; errors are over the variance."""

    train_error: float
    test_error: float
    interval: list[float]  # of the test error, 95 %, over images
    ratio: float  # of the test error to that of PConv + PWConv, fitted in the same way
    ratio_interval: list[float]
    how: str  # what the fit is: 'exact', or how an iteration ended


@dataclass
class Curve:
    """Hold the validation error, over the variance, in the course of a training."""

    steps: list[int]
    errors: list[float]


@dataclass
class Substitute:
    """Hold what stands in for a 3x3 convolution, what it costs, and how near it comes."""

    name: str
    parameters: int
    multiply_adds: int
    latency_ms: Latency
    optimum: Fit
    trained: Fit | None
    curve: Curve | None
    channels: list[int] | None  # that PConv convolves, where they are not the first ones


@dataclass
class ApproximatedLayer:
    """Hold a regular 3x3 convolution and its substitutes."""

    name: str
    channels: list[int]  # in and out
    size: list[int]  # height and width of its output
    stride: int
    variance: float  # of an output value about its channel's mean, on the test images
    rows: dict[str, int]  # output pixels that entered, by part: 'train', 'val' and 'test'
    images: dict[str, int]
    parameters: int
    multiply_adds: int
    latency_ms: Latency
    substitutes: list[Substitute]
    missing: dict[str, str]  # substitutes that there cannot be, and why
    labels: list[str]


@dataclass
class Approximation:
    """Hold how near cheap operators come to regular 3x3 convolutions: the paper's table 2."""

    layers: list[ApproximatedLayer]
    steps: int  # of Adam
    device: str


@dataclass
class SalientStage:
    """Hold at which of the nine positions the 3x3 filters of a stage are largest, row by row; the paper's figure 6."""

    name: str
    layers: list[str]
    filters: int
    counts: list[int]  # filters whose largest norm over the input channels is there
    energy: list[float]  # share of the squared weights, mean over the filters


@dataclass
class Salient:
    """Hold the salient positions of all regular 3x3 convolutions."""

    stages: list[SalientStage]


@dataclass
class RedundantLayer:
    """Hold how much the channels of the maps that a layer sees repeat one another."""

    name: str
    channels: int
    size: list[int]  # height and width of the maps
    rows: int  # pixels that entered
    constant: int  # channels without any variance, which are left out
    correlation: list[float]  # a channel's largest absolute correlation with another one: quartiles over the channels
    components: int  # principal ones that hold 90 % of the variance
    explained: float  # share of the other channels' variance that the first quarter explains, on other images


@dataclass
class Redundancy:
    """Hold the redundancy of feature maps, figure 3 in numbers."""

    layers: list[RedundantLayer]
    images: dict[str, int]  # 'train' and 'test'


@dataclass
class Finding:
    """Hold a detection in a picture, or one of a classifier's best classes."""

    name: str
    score: float
    box: list[float] | None  # x1, y1, x2, y2 in the picture's pixels; None of a classifier
    target: bool  # whether gradients are of its score


@dataclass
class FeatureMap:
    """Hold what a layer's map over a picture says in numbers."""

    layer: str
    method: str
    shape: list[int]  # channels, height and width of the layer's output
    mean: float  # of all its values
    inside: float | None = None  # share of the map within boxes: of the target by gradients, otherwise of all
    area: float | None = None  # share of the picture that these boxes cover: what an even map has inside
    file: str | None = None  # None where the map is 0 everywhere, as where no gradient reaches a layer


@dataclass
class PictureFeatures:
    """Hold what a network sees in a picture."""

    picture: str
    size: list[int]  # H, W
    input: list[int]  # H, W of what the network takes
    found: list[Finding]
    maps: list[FeatureMap]
    note: str | None  # why a map is missing


@dataclass
class Features:
    """Hold the maps of layers over pictures."""

    methods: list[str]
    layers: list[str] | None  # None: the default
    wanted: str | None  # class whose evidence gradients show; None: the best one
    score_threshold: float
    pictures: list[PictureFeatures]


RESULTS = dict(approximation=Approximation, salient=Salient, redundancy=Redundancy, features=Features)


@dataclass
class Images:
    """Name the pictures that a study saw."""

    number: int
    folder: str


@dataclass
class Study:
    """Hold what one run of tools/study.py found."""

    study: str
    created: str
    command: list[str]
    environment: Snapshot
    model: str
    checkpoint: str | None
    checkpoint_sha256: str | None
    images: Images | None
    labels: list[str]
    result: object  # of the class that RESULTS has for `study`
    schema: str = field(default=SCHEMA)


def to_json(study: Study) -> dict:
    """Return a study as JSON's dicts, lists and scalars."""
    return dataclasses.asdict(study)


def from_json(data: object, source: str) -> Study:
    """Build a study from what json.loads returns.

    Raises:
        UserError: Names `source` and the first field that is unknown, missing or of another type.
    """
    schema = data.get('schema') if isinstance(data, dict) else None
    advice = 'run this tools/study.py again'
    if schema != SCHEMA:
        raise UserError(f'{source} has schema {schema!r}, not {SCHEMA!r}; {advice}')
    try:
        study = read(Study, data, 'study')
        if study.study not in RESULTS:
            raise UserError(f'study.study is {study.study!r}, expected one of {", ".join(RESULTS)}')
        study.result = read(RESULTS[study.study], study.result, 'study.result')
        return study
    except UserError as error:
        raise UserError(f'{source}: {error}; {advice}') from error


def load_study(path: str | Path) -> Study:
    """Read a study.json, or the one in a folder.

    Raises:
        UserError: If there is none, it is not JSON, it is of another schema, or a field is unknown or missing.
    """
    return from_json(*read_json(path, 'study'))
