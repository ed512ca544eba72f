"""Try an adapted config: build the model, train one step and predict, on random images with made-up annotations."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import is_cuda_available
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope

from ..engine.explaining import cause, nodes
from ..errors import UserError
from .demo import demo_batch
from .maps import build_whole
from .segmentors import of_side, side_of
from .swap import SCOPES


class Trial(NamedTuple):
    """What a trial gave: the losses of one training step by name, and the predictions in words.

    Trackers whose parts are trained on their own (SORT, DeepSORT) have no losses.
    """

    losses: dict[str, float]
    predictions: str


def try_out(cfg: Config, side: int | None = None) -> Trial:
    """Build the model of `cfg` with random weights, train a step with its own optimizer, and predict.

    Args:
        cfg (Config): Of mmdet, mmpretrain or mmseg; not changed. No weights are loaded or downloaded; a language
            model is a small random one.
        side (int, optional): Height and width of the two images. Defaults to 128, to 256 where queries are chosen among
            the pixels, and to what an anchor generator is made for.

    Raises:
        UserError: If the trial fails.
    """
    model = TrialModel(cfg, side)
    return Trial(model.train_step(), model.predict())


class TrialModel:
    """A model with random weights, and the made-up batches that it takes. The arguments are those of :func:`try_out`.

    Raises:
        UserError: If the model cannot be built, or is of another library.
    """

    def __init__(self, cfg: Config, side: int | None = None) -> None:
        self.cfg, self.side = cfg, side or _side(cfg.model)
        self.scope = cfg.get('default_scope')
        self.place = f'model, {cfg.model.type},'
        if self.scope not in SCOPES:
            raise UserError(f'{self.place} is of {self.scope}: only models of {", ".join(SCOPES)} can be tried out')
        with self._explained('be built'):
            self.model: BaseModel = build_whole(of_side(_shrunk(cfg, self.side), self.side), self.scope)
            self.model.init_weights()

    def train_step(self) -> dict[str, float]:
        """Train a step with the optimizer of the config, and return the losses by name, which are finite.

        Returns:
            dict[str, float]: Empty for a tracker whose parts are trained on their own (SORT, DeepSORT).

        Raises:
            UserError: If it fails, or a loss is not finite.
        """
        if self.scope == 'mmdet' and _is_of_parts(self.model):
            return {}
        with self._explained('train a step'):
            wrapper = _optim_wrapper(self.model, self.cfg)
            self.model.train()
            losses = self.model.train_step(demo_batch(self.cfg, self.side, training=True), wrapper)
        losses = {name: value.item() for name, value in losses.items()}
        if not all(torch.tensor(list(losses.values())).isfinite()):
            raise UserError(f'{self.place} has losses that are not finite: {losses}')
        return losses

    @torch.no_grad()
    def predict(self) -> str:
        """Predict image by image, which some heads insist on, and return in words what was found on each.

        Raises:
            UserError: If it fails.
        """
        with self._explained('predict'):
            self.model.eval()
            batch = demo_batch(self.cfg, self.side, training=False)
            singles = [{key: value[i : i + 1] for key, value in batch.items()} for i in range(len(batch['inputs']))]
            return '; '.join(_told(self.model.test_step(single)[0]) for single in singles)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what is raised inside the block into a UserError, and keep a line for each parameter out of the log."""
        logger = MMLogger.get_current_instance()
        before = logger.level
        logger.setLevel(logging.ERROR)
        MessageHub.get_current_instance().update_info_dict(dict(iter=0, epoch=0))  # some heads and preprocessors ask
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                yield
        except Exception as error:
            raise UserError(f'{self.place} cannot {what}: {cause(error)}') from error
        finally:
            logger.setLevel(before)


def _shrunk(cfg: Config, side: int) -> Config:
    """Return a copy of `cfg` in which a hundred boxes of an image go on to the next stage, and no batch is padded."""
    cfg = copy.deepcopy(cfg)
    for _, node in nodes(cfg.model):
        if isinstance(node, dict):
            if isinstance(node.get('max_per_img'), int):
                node['max_per_img'] = min(node['max_per_img'], 100)  # a thousand take seconds
            if node.get('type') == 'BatchFixedSizePad':
                node['size'] = (side, side)  # not 1024, with which Mask2Former needs more than 12 GB
    return cfg


def _side(model: ConfigDict) -> int:
    made_for = [node.get('input_size') for _, node in nodes(model) if isinstance(node, dict)]
    made_for.append(side_of(model))
    return max([side for side in made_for if isinstance(side, int)], default=256 if model.get('num_queries') else 128)


def _is_of_parts(model: BaseModel) -> bool:
    from mmdet.models.mot import DeepSORT

    return isinstance(model, DeepSORT)


def _optim_wrapper(model: BaseModel, cfg: Config) -> OptimWrapper:
    """Return the wrapper of the config, in full precision where there is no GPU."""
    settings = copy.deepcopy(cfg.optim_wrapper)
    if settings.get('type') == 'AmpOptimWrapper' and not is_cuda_available():
        settings.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            settings.pop(key, None)
    return build_optim_wrapper(model, settings)


def _told(sample) -> str:
    if 'video_data_samples' in sample:
        return '; '.join(_told(frame) for frame in sample.video_data_samples)
    if 'pred_score' in sample:
        return f'class {sample.pred_score.argmax().item()} of {len(sample.pred_score)}'
    if 'pred_feature' in sample:
        return f'{len(sample.pred_feature)} features'
    found = []
    if 'pred_track_instances' in sample:
        found.append(f'{len(sample.pred_track_instances)} tracks')
    elif 'pred_instances' in sample:
        found.append(f'{len(sample.pred_instances)} detections')
    if 'pred_panoptic_seg' in sample:
        found.append('a panoptic map')
    if 'pred_sem_seg' in sample:
        found.append('a semantic map')
    return ' and '.join(found) or 'nothing'
