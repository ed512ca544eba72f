"""Examine all of the data that a config names: files, images, objects, and what the sets have in common."""

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config
from torch.utils.data import DataLoader, Dataset

from ..engine.checks.images import Decoder, ImageFile, examine, is_remote
from .coco import SHOWN, check_content, repeated
from .findings import Finding
from .model import Sizes, check_model, sizes_of
from .sources import Source, sources_of

Track = Callable[..., Iterable]  # shows how far it is: takes what is iterated over, and its length as `total`


@dataclass
class Diagnosis:
    """What was found.

    Attributes:
        sources (list[Source]): The data sets.
        files (dict): What is known of each image's file, by its path and how it is decoded.
        findings (list[Finding]): The worst first.
        counts (dict[str, Counter]): By the data set's key, the number of objects, or images, of each class.
        sizes (dict[str, Sizes]): By the data set's key, the sizes of its objects, where it has boxes.
    """

    sources: list[Source]
    files: dict[tuple[str, Decoder], ImageFile]
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, Counter] = field(default_factory=dict)
    sizes: dict[str, Sizes] = field(default_factory=dict)

    @property
    def is_bad(self) -> bool:
        """Whether something stops or spoils a training."""
        return any(finding.is_bad for finding in self.findings)


def diagnose(cfg: Config, track: Track = lambda items, total: items) -> Diagnosis:
    """Examine the data sets of a config, and every image of them.

    Args:
        cfg (Config): Of a detector or a classifier; nothing is trained.
        track (Callable): Takes the results of images as they come, and their number; a progress bar, for example.

    Raises:
        UserError: If the config has no data loader.
    """
    sources = sources_of(cfg)
    return judge(cfg, sources, look_at_images(sources, track))


def judge(cfg: Config, sources: list[Source], files: dict[tuple[str, Decoder], ImageFile]) -> Diagnosis:
    """Check what the sources hold, with what is known of the images' files."""
    result = Diagnosis(sources, files)
    for source in sources:
        findings = list(source.findings)
        seen = [files.get((path, source.decoder)) for path in source.paths]
        if source.converted:  # some formats do not say it
            for image, file in zip(source.content['images'], seen):
                width, height = file.size if file and file.size else (0, 0)
                image.update(width=image.get('width', width), height=image.get('height', height))
        if source.content is not None:
            found, whole = check_content(source.content, source.reading, seen)
            result.counts[source.place] = whole.counts()
            sizes, about_sizes = sizes_of(cfg, source, whole, sources)
            result.sizes[source.place] = sizes
            findings += found + about_sizes
        elif source.paths:
            findings += _check_images(source, seen)
            if source.labels is not None:
                counts, found = _check_labels(source)
                result.counts[source.place] = counts
                findings += found
        listed = set(repeated(source.paths))
        known = [i for i, file in enumerate(seen) if file and file.digest and i not in listed]
        findings += _about_images('image_twice', source, (known[i] for i in repeated(seen[i].digest for i in known)))
        result.findings += findings
    result.findings += [*check_model(cfg, sources), *_in_both(sources, files)]
    result.findings.sort(key=lambda finding: list(type(finding.severity)).index(finding.severity))
    return result


class _Files(Dataset):
    def __init__(self, files: list[tuple[str, Decoder]]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> ImageFile:
        return examine(*self.files[index])


def _start_worker(worker: int) -> None:
    """Let decoders complain to nobody, for what is wrong with an image becomes a finding; leave the parent's objects.

    Collected here, an object whose threads only the parent has, as ONNX Runtime's, would wait for them for ever.
    """
    gc.freeze()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def look_at_images(sources: list[Source], track: Track) -> dict[tuple[str, Decoder], ImageFile]:
    """Decode each local image of the sources once, on all processors."""
    local = ((path, source.decoder) for source in sources if source.is_local for path in source.paths)
    files = [file for file in dict.fromkeys(local) if not is_remote(file[0])]
    processors = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    workers = min(processors, len(files))
    prefetch = 16 if workers else None
    loader = DataLoader(
        _Files(files), batch_size=None, num_workers=workers, prefetch_factor=prefetch, worker_init_fn=_start_worker
    )
    return dict(zip(files, track(loader, total=len(files))))


def _about_images(
    kind: str, source: Source, positions: Iterable[int], told: dict[int, str] | None = None
) -> Iterator[Finding]:
    positions = list(positions)
    if positions:
        names = [f'{source.paths[i]} {(told or {}).get(i, "")}'.strip() for i in positions[:SHOWN]]
        yield Finding(kind, source.place, len(positions), names, 'images', positions)


def _check_images(source: Source, files: list[ImageFile | None]) -> Iterator[Finding]:
    """Check files that nothing is said about."""
    told = {i: file.told for i, file in enumerate(files) if file and file.fault}
    for fault in dict.fromkeys(file.fault for file in files if file and file.fault):
        positions = [i for i, file in enumerate(files) if file and file.fault == fault]
        yield from _about_images(f'image_{fault}', source, positions, told)


def _check_labels(source: Source) -> tuple[Counter, list[Finding]]:
    """Count the labels of a set for classification, and find those that are no class."""
    classes = source.classes
    counts = Counter(int(label) for labels in source.labels for label in labels)
    wrong = {i: f'has the label {label}' for i, labels in enumerate(source.labels) for label in labels
             if classes and not 0 <= label < len(classes)}  # fmt: skip
    findings = list(_about_images('label', source, wrong, wrong))
    if empty := [repr(name) for number, name in enumerate(classes) if not counts[number]]:
        findings.append(Finding('class_empty', source.place, len(empty), empty[:SHOWN]))
    names = dict(enumerate(classes))
    return Counter({names.get(label, label): count for label, count in counts.items()}), findings


def _in_both(sources: list[Source], files: dict[tuple[str, Decoder], ImageFile]) -> Iterator[Finding]:
    """Find images of the training that are in validation, too, by content, and by name where the content differs."""
    digests, names = set(), set()
    for source in sources:
        if source.role == 'val':
            digests |= {file.digest for path in source.paths if (file := files.get((path, source.decoder)))}
            names |= {Path(path).name for path in source.paths}
    for source in sources:
        if source.role == 'train':
            seen = [files.get((path, source.decoder)) for path in source.paths]
            both = {i for i, file in enumerate(seen) if file and file.digest and file.digest in digests}
            alike = {i for i, path in enumerate(source.paths) if Path(path).name in names}
            yield from _about_images('train_and_val', source, sorted(both))
            yield from _about_images('same_name', source, sorted(alike - both))
