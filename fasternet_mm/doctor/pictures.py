"""Pictures of a diagnosis: ground truth as it stands in the file, the number of objects by class, and their sizes."""

import io
from collections import defaultdict

import matplotlib
import mmcv
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pycocotools import mask as coco_mask

from .coco import is_polygon, mask_fault
from .examination import Diagnosis
from .model import SMALL, Sizes
from .sources import Source

_TILES, _COLUMNS = 12, 4  # of the grid of ground truth
_MOST_CLASSES = 100
_STYLE = {
    **{f'axes.spines.{side}': False for side in ('top', 'right')},
    **{'axes.axisbelow': True, 'axes.labelsize': 9, 'axes.titlesize': 9, 'axes.titlelocation': 'left'},
    **{'grid.color': '#dee2e6', 'grid.linewidth': 0.6, 'xtick.labelsize': 8, 'ytick.labelsize': 8},
    **{'legend.fontsize': 8, 'legend.title_fontsize': 8, 'legend.frameon': False, 'savefig.dpi': 120},
}
_BLUE, _GREY, _RED = '#3b6fb6', '#868e96', '#d1350f'


def pictures(diagnosis: Diagnosis) -> dict[str, bytes]:
    """Draw each data set, as PNG files by name."""
    files = {}
    with matplotlib.rc_context(_STYLE):
        for source in diagnosis.sources:
            name = source.place.replace('_dataloader.dataset', '').replace('.', '_')
            figures = {f'ground_truth_{name}.png': _ground_truth(source, diagnosis)}
            if counts := diagnosis.counts.get(source.place):
                figures[f'classes_{name}.png'] = _classes(source, counts)
            if (sizes := diagnosis.sizes.get(source.place)) is not None and len(sizes.sides):
                figures[f'sizes_{name}.png'] = _sizes(sizes)
            for file, figure in figures.items():
                if figure is not None:
                    drawn = io.BytesIO()
                    FigureCanvasAgg(figure)
                    figure.savefig(drawn, format='png')
                    files[file] = drawn.getvalue()
    return files


def _ground_truth(source: Source, diagnosis: Diagnosis) -> Figure | None:
    """Draw up to twelve images, evenly many apart, with what the file says about them."""
    files = (diagnosis.files.get((path, source.decoder)) for path in source.paths)
    objects = defaultdict(list)
    for entry in source.content['annotations'] if source.content else ():
        if isinstance(entry, dict) and isinstance(entry.get('image_id'), (int, str)):
            objects[entry['image_id']].append(entry)
    images = source.content['images'] if source.content else [{}] * len(source.paths)
    good = [i for i, file in enumerate(files) if file and file.fault in ('', 'damaged')]
    full = [i for i in good if isinstance(images[i], dict) and objects.get(images[i].get('id'))] or good
    chosen = (
        [full[i] for i in np.unique(np.linspace(0, len(full) - 1, min(_TILES, len(full))).astype(int))] if full else []
    )
    if not chosen:
        return None
    rows = -(-len(chosen) // _COLUMNS)
    figure = Figure(figsize=(3 * _COLUMNS, 2.6 * rows), layout='constrained')
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    colours = matplotlib.colormaps['tab20'].colors
    for axis in axes:
        axis.axis('off')
    for axis, i in zip(axes, chosen):
        picture = mmcv.imread(source.paths[i], source.decoder.color_type, 'rgb', source.decoder.backend)
        height, width = picture.shape[:2]
        axis.imshow(picture)
        title = str(images[i].get('file_name', source.paths[i].rpartition('/')[2]))
        if source.labels is not None:
            names = dict(enumerate(source.classes))
            title = f'{", ".join(str(names.get(label, label)) for label in source.labels[i])}: {title}'
        axis.set_title(title if len(title) <= 34 else f'{title[:15]}...{title[-16:]}', loc='center')
        names = {one.get('id'): one.get('name') for one in source.content['categories'] if isinstance(one, dict)} \
            if source.content else {}  # fmt: skip
        for entry in objects.get(images[i].get('id'), ()):
            place = list(names).index(entry['category_id']) if entry.get('category_id') in names else 0
            _draw(axis, entry, names, colours[place % len(colours)], width, height)
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return figure


def _draw(axis, entry: dict, names: dict, colour, width: int, height: int) -> None:
    mask = entry.get('segmentation')
    if mask and mask_fault(mask, width, height) in (None, 'mask_empty'):
        _draw_mask(axis, mask, colour, width, height)
    try:
        x, y, w, h = map(float, entry['bbox'])
    except (KeyError, TypeError, ValueError):
        return
    if np.isfinite([x, y, w, h]).all():
        axis.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=colour, linewidth=1.2))
        name = str(names.get(entry.get('category_id'), '?'))
        axis.text(x, max(y, 0), name, fontsize=6, color='white', va='top', clip_on=True,
                  bbox=dict(facecolor=colour, edgecolor='none', pad=0.6, alpha=0.8))  # fmt: skip


def _draw_mask(axis, mask, colour, width: int, height: int) -> None:
    if isinstance(mask, list):
        for polygon in filter(is_polygon, mask):
            axis.fill(polygon[::2], polygon[1::2], color=colour, alpha=0.4, linewidth=0)
        return
    code = mask if isinstance(mask['counts'], str) else coco_mask.frPyObjects(mask, height, width)
    overlay = np.zeros((height, width, 4))
    overlay[coco_mask.decode(code) > 0] = [*colour[:3], 0.4]
    axis.imshow(overlay)


def _classes(source: Source, counts) -> Figure:
    """Draw the number of objects by class, the most first; of very many classes the fewest are shown, too."""
    ranked = [(str(name), counts.get(name, 0)) for name in (source.classes or counts)]
    ranked.sort(key=lambda pair: -pair[1])
    left_out = len(ranked) - _MOST_CLASSES
    if left_out > 0:
        half = _MOST_CLASSES // 2
        ranked = [*ranked[:half], (f'... {left_out} classes ...', 0), *ranked[-half:]]
    figure = Figure(figsize=(7, 1 + 0.16 * len(ranked)), layout='constrained')
    axis = figure.subplots()
    numbers = [number for _, number in ranked]
    places = range(len(ranked))
    axis.barh(places, numbers, color=_BLUE, height=0.7)
    axis.set_yticks(places, [name if len(name) <= 30 else f'{name[:29]}...' for name, _ in ranked], fontsize=7)
    axis.set_ylim(len(ranked) - 0.4, -0.6)
    for place, number in zip(places, numbers):
        axis.annotate(str(number), (number, place), (3, 0), textcoords='offset points', fontsize=6, va='center',
                      color=_GREY if number else _RED)  # fmt: skip
    what = 'labels' if source.labels is not None else 'objects'
    axis.set(title=f'{source.place}: {what} of each class, {sum(counts.values())} in all', xlabel=what)
    axis.grid(axis='x')
    return figure


def _sizes(sizes: Sizes) -> Figure:
    """Draw widths and heights of the boxes, and those of the anchors."""
    figure = Figure(figsize=(8.5, 6.5), layout='constrained')
    axis = figure.subplots()
    width, height = sizes.sides.T
    many = len(width) > 2000
    shown = dict(s=4, alpha=0.15, rasterized=True) if many else dict(s=12, alpha=0.5)
    axis.scatter(width, height, color=_BLUE, linewidths=0, label=f'{len(width)} objects', zorder=2, **shown)
    colours = matplotlib.colormaps['autumn'](np.linspace(0, 0.8, max(1, len(sizes.anchors))))
    for (stride, sides), colour in zip(sizes.anchors.items(), colours):
        axis.scatter(*sides.T, marker='P', s=45, color=colour, edgecolors='black', linewidths=0.5, zorder=3,
                     label=f'anchors at stride {stride}')  # fmt: skip
    limits = [min(width.min(), height.min()) * 0.8, max(width.max(), height.max()) * 1.25]
    line = np.geomspace(*limits, 50)
    axis.plot(
        line, SMALL**2 / line, color=_GREY, linestyle='--', linewidth=1, label=f'{SMALL} pixels: {sizes.small} below'
    )
    axis.plot(limits, limits, color=_GREY, linewidth=0.6, zorder=1)
    axis.set(xscale='log', yscale='log', xlim=limits, ylim=limits, xlabel='width in pixels', ylabel='height in pixels')
    axis.grid()
    reached = sizes.told if sizes.reached is None else f'an anchor reaches {sizes.reached:.1%} with an IoU of 0.5'
    axis.set_title(f'{sizes.place} {sizes.resize}\n{reached}')
    figure.legend(loc='outside right upper')
    return figure
