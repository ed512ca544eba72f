"""Exported files on a config's own images: the inputs they take, and their accuracy by the config's own evaluator."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from rich.progress import track
from torch import Tensor

from ..engine.samples import leaves
from ..errors import UserError
from .detector.pipeline import pipeline_of
from .quantization import read, run_in_openvino
from .runtime import ExportedModel, ExportedModelError, metadata_of, read_picture

_CLASSIFIER_SHAPE = (224, 224)
_LARGEST_SHAPE = (1280, 1280)  # of a backbone's input whose file takes any


class ExportedFile:
    """What is known of an exported file, and the inputs that it takes.

    Args:
        path (Path): An .onnx of ``tools/export.py``, or an .xml of ``tools/quantize.py``.

    Attributes:
        metadata (dict[str, str]): What the file says of itself; values are plain text or JSON.
        kind (str): 'detector', 'classifier', or 'features' of a backbone with or without a neck.
        shape (tuple[int, int], optional): H, W of a file of fixed size, else None.
        detector (ExportedModel, optional): The file in OpenVINO, if it is a whole detector.

    Raises:
        UserError: If openvino is missing, or the file is of another kind or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path, model = path, read(path)
        self.metadata = metadata_of(model)
        if 'fasternet_mm' not in self.metadata.get('producer', ''):
            raise UserError(f'{path} does not say how images are prepared for it; expected a file of tools/export.py')
        outputs = [output.get_any_name() for output in model.outputs]
        self.kind = 'detector' if 'task' in self.metadata else 'classifier' if outputs == ['logits'] else 'features'
        first = 1 if self.kind == 'detector' else 2
        sides = list(model.inputs[0].get_partial_shape())[first : first + 2]
        self.shape = tuple(side.get_length() for side in sides) if all(side.is_static for side in sides) else None
        try:
            self.detector = ExportedModel(path, 'openvino') if self.kind == 'detector' else None
        except ExportedModelError as error:
            raise UserError(str(error)) from error

    def training_inputs(self, cfg: Config, count: int) -> 'Inputs':
        """Return inputs made of the config's training images, evenly chosen, as its test pipeline gives them.

        Raises:
            UserError: If the first cannot be read, or the file takes another size than the test pipeline gives.
        """
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            datasets = [leaf for _, leaf in leaves(DATASETS.build(cfg.train_dataloader.dataset), '')]
            pipeline = Compose(pipeline_of(cfg))
        everything = sum(map(len, datasets))
        if not everything:
            raise UserError('train_dataloader.dataset has no image to calibrate on')
        places = [_place(datasets, int(place)) for place in np.linspace(0, everything - 1, min(count, everything))]

        def make(place: tuple) -> np.ndarray:
            info = place[0].get_data_info(place[1])
            if self.detector:
                return self.detector.prepare(_read(info['img_path']))[0]
            pixels = pipeline(info)['inputs'].permute(1, 2, 0).numpy()
            return normalized(pixels, self.metadata) if self.kind == 'classifier' else self._padded(pixels)

        inputs = Inputs(places, make)
        if self.kind == 'classifier' and self.shape not in (None, inputs[0].shape[2:]):
            taken, given = (' x '.join(map(str, shape)) for shape in (self.shape, inputs[0].shape[2:]))
            raise UserError(f'{self.path} takes images of {taken}, but the test pipeline gives {given}: export it so')
        return inputs

    def picture_inputs(self, files: Sequence[str | Path]) -> 'Inputs':
        """Return inputs made of pictures: a classifier's are resized to its size, or to 224 x 224."""

        def make(file: str | Path) -> np.ndarray:
            if self.detector:
                return self.detector.prepare(_read(file))[0]
            if self.kind == 'features':
                return self._padded(_read(file))
            return normalized(cv2.resize(_read(file), (self.shape or _CLASSIFIER_SHAPE)[::-1]), self.metadata)

        return Inputs(files, make)

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        """Return a backbone's input for pixels (h, w, 3): as large as fits into its size, with zeros around."""
        (height, width), most = pixels.shape[:2], self.shape or _LARGEST_SHAPE
        scale = min(most[0] / height, most[1] / width)
        if self.shape or scale < 1:
            pixels = cv2.resize(pixels, [max(1, round(side * scale)) for side in (width, height)])
        sides = pixels.shape[:2]
        whole = self.shape or [side + -side % 32 for side in sides]
        return np.pad(normalized(pixels, self.metadata), [(0, 0), (0, 0), *((0, a - b) for a, b in zip(whole, sides))])

    def evaluate(self, cfg: Config) -> dict[str, float]:
        """Return what :func:`evaluate_detector` or :func:`evaluate_classifier` does, of the file in OpenVINO."""
        if self.detector:
            return evaluate_detector(self.detector, cfg)
        run = run_in_openvino(read(self.path))
        return evaluate_classifier(lambda images: [torch.from_numpy(run(images.numpy())['logits'])], self.metadata, cfg)


class Inputs(Sequence):
    """Inputs of an exported file, made when they are asked for: one at a time is in memory.

    Args:
        sources (Sequence): What they are made of.
        make (Callable): Makes one of them an input.
    """

    def __init__(self, sources: Sequence, make: Callable[..., np.ndarray]) -> None:
        self.sources, self.make = sources, make

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Inputs(self.sources[index], self.make)
        return self.make(self.sources[index])


def _place(datasets: Sequence[BaseDataset], index: int) -> tuple[BaseDataset, int]:
    """Return which data set has the sample of this index in all of them, and as which."""
    for dataset in datasets:
        if index < len(dataset):
            break
        index -= len(dataset)
    return dataset, index


def _read(picture: str | Path) -> np.ndarray:
    try:
        return read_picture(picture)
    except ExportedModelError as error:
        raise UserError(str(error)) from error


def evaluate_detector(exported: ExportedModel, cfg: Config) -> dict[str, float]:
    """Return what the config's evaluator says of a whole detector's file on the config's test images.

    Args:
        exported (ExportedModel): The file; it reads and resizes the images itself.
        cfg (Config): Of mmdet; names `test_dataloader` and `test_evaluator`.

    Returns:
        dict[str, float]: Of the evaluator, such as 'coco/segm_mAP'.

    Raises:
        UserError: If the file's classes are not the test data's.
    """

    def predict(_, sample: BaseDataElement) -> None:
        found = exported(sample.img_path)
        arrays = dict(bboxes=found.boxes, scores=found.scores, labels=found.labels, masks=found.masks)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}
        sample.pred_instances = InstanceData(**tensors)

    return evaluate_by(predict, cfg, exported.classes)


def evaluate_classifier(
    call: Callable[[Tensor], Sequence[Tensor]], metadata: Mapping[str, str], cfg: Config
) -> dict[str, float]:
    """Return what the config's evaluator says of a classifier's file on the config's test images.

    Args:
        call (Callable): Images (1, 3, H, W) to the logits, as of :func:`onnxruntime_session`.
        metadata (Mapping[str, str]): What the file says of itself, such as the mean and std of its images.
        cfg (Config): Of mmpretrain; names `test_dataloader` and `test_evaluator`.

    Returns:
        dict[str, float]: Of the evaluator, such as 'accuracy/top1'.
    """

    def predict(pixels: Tensor, sample: BaseDataElement) -> None:
        (logits,) = call(torch.from_numpy(normalized(pixels.permute(1, 2, 0).numpy(), metadata)))
        sample.set_pred_score(logits[0].softmax(0)).set_pred_label(logits[0].argmax(0, keepdim=True))

    return evaluate_by(predict, cfg)


def evaluate_by(
    predict: Callable[[Tensor, BaseDataElement], None], cfg: Config, classes: Sequence[str] | None = None
) -> dict[str, float]:
    """Return what the config's evaluator says of predictions on the config's test images.

    Args:
        predict (Callable): Takes what the test pipeline makes of an image, and fills its sample.
        cfg (Config): Names `test_dataloader` and `test_evaluator`.
        classes (Sequence[str], optional): Names of the predicted labels, which must be the test data's.

    Raises:
        UserError: If the classes are others.
    """
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        loader = Runner.build_dataloader({**cfg.test_dataloader, 'batch_size': 1})
        metainfo = loader.dataset.metainfo
        if classes is not None and list(classes) != list(metainfo['classes']):
            raise UserError(f"the file's classes are {_few(classes)}, the test data's {_few(metainfo['classes'])}")
        evaluator = Evaluator(cfg.test_evaluator)
        evaluator.dataset_meta = metainfo
        for batch in track(loader, 'Evaluating', transient=True):
            (pixels,), (sample,) = batch['inputs'], batch['data_samples']
            predict(pixels, sample)
            evaluator.process(data_samples=[sample], data_batch=batch)
        metrics = evaluator.evaluate(len(loader.dataset))
    return {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}


def _few(names: Sequence[str]) -> str:
    return f'{len(names)} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'


def normalized(picture: np.ndarray, metadata: Mapping[str, str]) -> np.ndarray:
    """Return a classifier's or backbone's input, (1, 3, H, W), float32, for pixels (H, W, 3), blue, green, red."""
    pixels = picture[..., ::-1] if metadata['channels'] == 'RGB' else picture
    mean, std = (json.loads(metadata[name]) or default for name, default in (('mean', 0), ('std', 1)))
    return np.ascontiguousarray(((pixels - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)[None], np.float32)
