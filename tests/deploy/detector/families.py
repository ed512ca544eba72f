"""Try one config of each of mmdet's families: its plain-tensor form finds what mmdet finds, or is refused in one line.

    python -m tests.deploy.detector.families [FAMILY ...]

Nothing is exported. Weights are random, and made to find something where it can be done; ten minutes on two cores.
"""

import sys
import warnings
from pathlib import Path

import mmdet
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from fasternet_mm.deploy.detector import DetectorGraph
from fasternet_mm.deploy.detector.compare import batch_of, compare, predicted
from fasternet_mm.deploy.detector.export import settings_of
from fasternet_mm.errors import UserError
from fasternet_mm.report.measure.detections import make_detections
from tests.helpers.detectors import noise

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
SIZE = (320, 384)


def without_weights(settings: object) -> None:
    """Take the pretrained weights out of a model's settings, in place."""
    if isinstance(settings, dict):
        if 'init_cfg' in settings:
            settings['init_cfg'] = None
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for part in settings:
            without_weights(part)


def build(config: Path) -> nn.Module:
    """Return the model of a config, with random weights."""
    torch.manual_seed(0)
    cfg = Config.fromfile(config)
    without_weights(cfg.model)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg.model).eval()


def tried(model: nn.Module) -> str:
    """Return how what a detector's plain-tensor form finds agrees with mmdet, or why it is refused."""
    try:
        graph = DetectorGraph(model).eval()
    except UserError as error:
        return f'refused: {error}'
    image, settings = noise(SIZE), settings_of(model)
    settings.max_per_img = 20
    make_detections(model, [batch_of(image)])
    with torch.no_grad():
        found = {name: out.numpy() for name, out in zip(graph.outputs, graph(torch.from_numpy(image)))}
    return str(compare(found, predicted(model, image), SIZE, settings, 0.5))


def main() -> None:
    warnings.simplefilter('ignore')
    print('| family | config | |\n|---|---|---|')
    for family in sys.argv[1:] or sorted(path.name for path in CONFIGS.iterdir() if path.is_dir()):
        configs = [path for path in (CONFIGS / family).glob('*_coco*.py') if 'tta' not in path.name]
        if not configs:  # data sets, trackers and parts of configs
            continue
        config = min(configs, key=lambda path: ('r50' not in path.name, len(path.name), path.name))
        try:
            told = tried(build(config))
        except Exception as error:
            told = f'{type(error).__name__}: {(str(error) or "-").splitlines()[0][:150]}'
        print(f'| {family} | {config.name} | {told} |', flush=True)


if __name__ == '__main__':
    main()
