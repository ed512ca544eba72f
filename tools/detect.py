"""Draw what an exported detector finds in pictures and videos, with numpy, OpenCV and one runtime alone."""

import argparse
import importlib.util
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve()
# beside this file, in a checkout, and in an installed fasternet_mm, where this is .mim/tools/detect.py
PLACES = (HERE.with_name('runtime.py'), HERE.parents[1] / 'fasternet_mm' / 'deploy' / 'runtime.py',
          HERE.parents[2] / 'deploy' / 'runtime.py')  # fmt: skip
SCORE_THRESHOLD = 0.5
PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


def load_runtime():
    """Return the module runtime.py, without the package around it, which needs torch."""
    path = next((path for path in PLACES if path.is_file()), None)
    if path is None:
        sys.exit(f"{HERE.name}: error: fasternet_mm's deploy/runtime.py is not there; copy it beside {HERE}")
    spec = importlib.util.spec_from_file_location('runtime', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runtime = load_runtime()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('file', metavar='FILE', help='.onnx of tools/export.py --what detector, or .xml')
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='pictures, videos, and folders of them')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for what is drawn')
    parser.add_argument(
        '--score-thr', type=float, help=f"lowest score to draw (default: {SCORE_THRESHOLD}, or the file's if higher)"
    )
    parser.add_argument('--runtime', choices=runtime.RUNTIMES, help='(default: the first that is installed)')
    return parser.parse_args(argv)


def main() -> int:
    args = parse_args()
    out = Path(args.out)
    targets = find_targets(args.inputs, out)
    model = runtime.ExportedModel(args.file, args.runtime)
    threshold = max(SCORE_THRESHOLD, model.score_threshold) if args.score_thr is None else args.score_thr
    model.require_threshold(threshold)
    out.mkdir(parents=True, exist_ok=True)
    print(f'{args.file}: {model.task}, {len(model.classes)} classes, in {model.runtime} on {model.device}')
    failed = 0
    for source, target in targets.items():
        try:
            found = (draw_video if is_video(source) else draw_picture)(model, source, target, threshold)
        except runtime.ExportedModelError as error:
            failed += 1
            print(f'{HERE.name}: error: {error}; skipped', file=sys.stderr)
        else:
            told = ', '.join(f'{number} {name}' for name, number in found.most_common()) or 'nothing found'
            print(f'{target}: {told}')
    return int(failed > 0)


# what is drawn where


def find_targets(inputs: list[str], out: Path) -> dict[Path, Path]:
    """Return where each picture and video goes.

    Raises:
        ExportedModelError: If an input is not there or not of a known kind, or a target exists or is named twice.
    """
    sources = [source for name in inputs for source in find_sources(Path(name))]
    if out.exists() and not out.is_dir():
        raise runtime.ExportedModelError(f'--out {out} is a file; name a folder')
    targets = {}
    for source in dict.fromkeys(sources):
        target = out / (f'{source.stem}.mp4' if is_video(source) else source.name)
        if target.exists():
            raise runtime.ExportedModelError(f'{target} exists; remove it or choose another --out')
        if target in targets.values():
            raise runtime.ExportedModelError(f'two inputs would be drawn as {target}; draw them into two folders')
        targets[source] = target
    return targets


def find_sources(path: Path) -> list[Path]:
    """Return the picture or video, or those in the folder, by name."""
    kinds = PICTURES + VIDEOS
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in kinds and each.is_file())
        if not found:
            raise runtime.ExportedModelError(f'{path} holds no pictures or videos ({" ".join(kinds)})')
        return found
    if not path.is_file():
        raise runtime.ExportedModelError(f'{path} is not there')
    if path.suffix.lower() not in kinds:
        raise runtime.ExportedModelError(f'{path} is no picture or video ({" ".join(kinds)})')
    return [path]


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Give a name beside `target` to write to, which becomes `target` where nothing goes wrong."""
    partial = target.with_name(f'{target.name}.{os.getpid()}.partial{target.suffix}')  # OpenCV reads the ending
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def draw_picture(model, source: Path, target: Path, threshold: float) -> Counter:
    """Draw what is found in a picture; return how many of each class."""
    picture = runtime.read_picture(source)
    found = model(picture, threshold)
    draw(picture, found)
    with whole(target) as partial:
        partial.write_bytes(cv2.imencode(target.suffix.lower(), picture)[1])
    return Counter(found.names)


def draw_video(model, source: Path, target: Path, threshold: float) -> Counter:
    """Draw what is found in each frame of a video; return how many of each class, of all frames together."""
    video = cv2.VideoCapture(str(source))
    read, frame = video.read()
    if not read:
        raise runtime.ExportedModelError(f'{source} is no video that OpenCV can read')
    rate, told = video.get(cv2.CAP_PROP_FPS) or 25, int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    counts, frames, start = Counter(), 0, time.monotonic()
    said = start
    with whole(target) as partial:
        writer = cv2.VideoWriter(str(partial), cv2.VideoWriter_fourcc(*'mp4v'), rate, frame.shape[1::-1])
        if not writer.isOpened():
            raise OSError(f'{target} cannot be written: this OpenCV writes no mp4')
        try:
            while read:
                found = model(frame, threshold)
                draw(frame, found)
                writer.write(frame)
                counts.update(found.names)
                frames += 1
                if time.monotonic() > said + 5:
                    said = time.monotonic()
                    print(f'{source}: frame {frames} of {told}, {frames / (said - start):.1f} a second', flush=True)
                read, frame = video.read()
        finally:
            writer.release()
        if frames + rate < told:  # by more than a second: what a container tells is not always exact
            raise runtime.ExportedModelError(f'{source} ends after {frames} of {told} frames')
        if (written := int(cv2.VideoCapture(str(partial)).get(cv2.CAP_PROP_FRAME_COUNT))) != frames:
            raise OSError(f'{target}: OpenCV wrote {written} of {frames} frames; is there room?')  # it says nothing
    return counts


# drawing


def draw(picture: np.ndarray, found) -> None:
    """Draw boxes, names, scores and masks into a picture (H, W, 3), the best score on top."""
    height, width = picture.shape[:2]
    line = max(1, round(max(height, width) / 400))
    order = range(len(found))[::-1]
    for index in order if found.masks is not None else ():
        left, top, right, bottom = found.boxes[index].astype(int)
        left, top = max(left - 1, 0), max(top - 1, 0)
        mask, part = (each[top : bottom + 2, left : right + 2] for each in (found.masks[index], picture))
        colour = colour_of(found.labels[index])
        part[mask] = 0.55 * part[mask] + 0.45 * np.array(colour)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(part, contours, -1, colour, line, cv2.LINE_AA)
    for index in order:
        left, top, right, bottom = found.boxes[index].round().astype(int).tolist()
        cv2.rectangle(picture, (left, top), (right, bottom), colour_of(found.labels[index]), line)
    for index in order:
        write_name(picture, found, index)


def write_name(picture: np.ndarray, found, index: int) -> None:
    """Write name and score on a plate on the box's upper edge, inside of the picture."""
    height, width = picture.shape[:2]
    text, colour = f'{found.names[index]} {found.scores[index]:.2f}', colour_of(found.labels[index])
    scale = max(0.35, max(height, width) / 2000)
    thickness = max(1, round(scale * 1.5))
    (text_width, text_height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    plate_width, plate_height = text_width + 4, text_height + below + 2
    left, top = (int(each) for each in found.boxes[index, :2].round())
    left = max(0, min(left, width - plate_width))
    top = top - plate_height if top >= plate_height else top
    cv2.rectangle(picture, (left, top), (left + plate_width, top + plate_height), colour, cv2.FILLED)
    light = np.dot(colour, (0.114, 0.587, 0.299)) > 140
    cv2.putText(picture, text, (left + 2, top + text_height + 1), cv2.FONT_HERSHEY_SIMPLEX, scale,
                (0, 0, 0) if light else (255, 255, 255), thickness, cv2.LINE_AA)  # fmt: skip


def colour_of(label: int) -> tuple[int, int, int]:
    """Return a class's blue, green, red: hues a golden angle apart, so that neighbours differ."""
    hue = int(label) * 137.508 % 360
    hsv = np.float32([[[hue, 0.75, 0.95]]])
    return tuple(int(each) for each in cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * 255)


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (runtime.ExportedModelError, OSError) as error:
        told = f'{error.filename}: {error.strerror}' if getattr(error, 'filename', None) else error
        sys.exit(f'{HERE.name}: error: {told}')
    except KeyboardInterrupt:
        print(f'{HERE.name}: interrupted', file=sys.stderr)
        sys.exit(130)
