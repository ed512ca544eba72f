"""A picture with a map and what was found drawn over it, and all of a picture's drawings in one."""

import io
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.visualization import Visualizer

from .schema import Finding


def inside(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which pixels (H, W) of a picture lie in one of the boxes (N, 4)."""
    covered = np.zeros(size, bool)
    for left, top, right, bottom in boxes.round().astype(int).clip(0):
        covered[top:bottom, left:right] = True
    return covered


def overlay(picture: np.ndarray, found: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3), blue, green, red, with a map (H, W) from 0 to 1 over the part that is visible."""
    colours = cv2.applyColorMap(np.uint8(255 * found), cv2.COLORMAP_TURBO)
    return np.where(visible[..., None], cv2.addWeighted(picture, 0.5, colours, 0.5, 0), picture)


def annotator(found: Sequence[Finding], size: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Return what draws boxes, names and scores, or without boxes a list, into pictures (H, W, 3) of this size."""
    # what is drawn on black, and how much of what is below shows through
    black, white = (_drawn(np.full((*size, 3), value, np.uint8), found).astype(np.float32) for value in (0, 255))
    through = (white - black) / 255
    return lambda picture: np.uint8((black + picture * through).round())


def _drawn(picture: np.ndarray, found: Sequence[Finding]) -> np.ndarray:
    visualizer, (height, width) = Visualizer(image=picture), picture.shape[:2]
    side = max(height, width)
    text = dict(font_sizes=max(6, round(side / 60)), colors='w')
    text['bboxes'] = dict(facecolor='black', alpha=0.6, pad=1, edgecolor='none')
    boxes = np.array([one.box for one in found if one.box])
    if len(boxes):
        found, boxes = found[::-1], boxes[::-1]  # the best on top
        boxes = boxes.clip(0, [width - 1, height - 1] * 2)
        widths = [max(1, side / 400) * (2 if one.target else 1) for one in found]
        visualizer.draw_bboxes(boxes, 'w', line_widths=widths, alpha=1)
        # above the box, and within the picture
        right, low = boxes[:, 0] > 0.6 * width, boxes[:, 1] > 0.08 * height
        places = np.stack([np.where(right, boxes[:, 2], boxes[:, 0]), boxes[:, 1]], 1)
        text['horizontal_alignments'] = ['right' if each else 'left' for each in right]
        text['vertical_alignments'] = ['bottom' if each else 'top' for each in low]
        visualizer.draw_texts([f'{one.name} {one.score:.2f}' for one in found], places, **text)
    elif found:
        lines = [f'{">" if one.target else " "} {one.score:.2f} {one.name}' for one in found]
        visualizer.draw_texts('\n'.join(lines), np.array([4, 4]), **text)
    return visualizer.get_image()


def grid(rows: dict[str, dict[str, np.ndarray]], columns: Sequence[str], title: str) -> bytes:
    """Return a PNG of pictures, blue, green, red, by row and column, of which a row may lack some."""
    height, width = next(iter(next(iter(rows.values())).values())).shape[:2]
    side = 2.6 * width / max(height, width), 2.6 * height / max(height, width)
    figure = Figure(figsize=(side[0] * len(columns) + 0.4, (side[1] + 0.3) * len(rows) + 0.3), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, (label, row) in zip(axes, rows.items()):
        for axis, name in zip(line, columns):
            axis.set(xticks=[], yticks=[])
            axis.set_title(name, fontsize=8)
            if name in row:
                axis.imshow(row[name][..., ::-1])
            else:
                axis.text(0.5, 0.5, '0 everywhere', ha='center', fontsize=8)
                axis.set_box_aspect(height / width)
        line[0].set_ylabel(label, fontsize=9)
    figure.suptitle(title, fontsize=9)
    drawing = io.BytesIO()
    figure.savefig(drawing, format='png', dpi=150)
    return drawing.getvalue()
