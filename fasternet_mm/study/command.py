"""What tools/study.py does between its arguments and its files."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ..checkpoint import checkpoint_sha256
from ..files import put_files, require_writable
from ..report import snapshot
from ..report.measure.environment import load_labels
from .approximation import approximation
from .features import features
from .images import find_pictures
from .layers import device_of
from .markdown import markdown
from .pictures import approximation_pictures, redundancy_pictures, salient_pictures
from .redundancy import redundancy
from .rows import Track, silent
from .salient import salient
from .schema import Images, Study, to_json
from .subject import Subject

_MOST_IMAGES = 512


def study_approximation(
    subject: Subject,
    images: str | Path,
    out: str | Path,
    layers: Sequence[str] | None = None,
    rows: int = 16384,
    steps: int = 600,
    command: Sequence[str] = (),
    track: Track = silent,
) -> Study:
    """Write how near cheap operators come to regular 3x3 convolutions into a folder; see :func:`approximation`."""
    require_writable(Path(out), f'--out {out}')
    files = find_pictures(images, _MOST_IMAGES)
    study = new_study('approximation', subject, command, images, files)
    study.labels += load_labels(study.environment)
    study.result = approximation(subject, files, layers, rows, steps, track)
    return write(study, out, approximation_pictures(study))


def study_salient(subject: Subject, out: str | Path, command: Sequence[str] = ()) -> Study:
    """Write where 3x3 filters are largest into a folder; see :func:`salient`."""
    require_writable(Path(out), f'--out {out}')
    study = new_study('salient', subject, command)
    study.result = salient(subject)
    return write(study, out, salient_pictures(study))


def study_redundancy(
    subject: Subject,
    images: str | Path,
    out: str | Path,
    layers: Sequence[str] | None = None,
    command: Sequence[str] = (),
    track: Track = silent,
) -> Study:
    """Write how much feature maps repeat one another into a folder; see :func:`redundancy`."""
    require_writable(Path(out), f'--out {out}')
    files = find_pictures(images, _MOST_IMAGES)
    study = new_study('redundancy', subject, command, images, files)
    study.result, maps = redundancy(subject, files, layers, track)
    return write(study, out, redundancy_pictures(study, subject.prepare.picture(files[0]), maps))


def study_features(
    subject: Subject,
    images: str | Path,
    out: str | Path,
    layers: Sequence[str] | None = None,
    methods: Sequence[str] = ('activation',),
    wanted: str | None = None,
    score_threshold: float = 0.5,
    command: Sequence[str] = (),
    track: Track = silent,
) -> Study:
    """Draw what layers see in a picture, or in those of a folder, into another folder; see :func:`features`."""
    require_writable(Path(out), f'--out {out}')
    files = find_pictures(images)
    study = new_study('features', subject, command, images, files)
    study.result = features(subject, files, Path(out), layers, methods, wanted, score_threshold, track)
    return write(study, out, {})


def new_study(
    name: str,
    subject: Subject,
    command: Sequence[str] = (),
    images: str | Path | None = None,
    files: Sequence[Path] = (),
) -> Study:
    """Return a study without a result, of the machine as it is now.

    Args:
        name (str): Of :data:`~fasternet_mm.study.schema.RESULTS`.
        subject (Subject): The network.
        command (Sequence[str]): Kept in the study.
        images (path, optional): The folder of the pictures, or a picture.
        files (Sequence[Path]): Those that are used.
    """
    return Study(
        name,
        created=datetime.now(UTC).isoformat(timespec='seconds'),
        command=list(command),
        environment=snapshot(device_of(subject.model)),
        model=subject.name,
        checkpoint=subject.checkpoint,
        checkpoint_sha256=checkpoint_sha256(subject.checkpoint),
        images=Images(len(files), Path(images).resolve().name) if images is not None else None,
        labels=list(subject.labels),
        result=None,
    )


def write(study: Study, out: str | Path, pictures: dict[str, bytes]) -> Study:
    """Write study.json, study.md and pictures, each whole or not at all, into a folder; return the study.

    Raises:
        UserError: If the folder cannot be written.
    """
    files = {'study.json': json.dumps(to_json(study), indent=1, allow_nan=False) + '\n', 'study.md': markdown(study)}
    put_files(out, files | pictures, 'the study')
    return study
