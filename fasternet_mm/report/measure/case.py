"""One way to run a model: what is timed, after its outputs were compared with those of eager fp32."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from mmdet.models import SingleStageDetector, StandardRoIHead, TwoStageDetector
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ...deploy import CudaGraphs, onnxruntime_session, openvino_session
from ...deploy.evaluation import evaluate_by, evaluate_classifier, evaluate_detector
from ...deploy.onnx import relative_difference, tensors_of
from ...deploy.runtime import ExportedModel
from ...errors import UserError
from ..schema import MODES, Measurement
from .detections import agreement, arrays_of
from .evaluation import widen
from .exported import detector_file, metadata_for, network_file, require_runtime, size_of
from .modes import DTYPES, UnsupportedModeError, half, in_mode
from .subject import Subject, detector_batches

# how far a mode's outputs may be from eager fp32, relative: what each dtype's rounding amounts to, and some
_TOLERANCE = dict(fp32=1e-4, fp16=5e-2, bf16=1e-1, int8=0.5)
# how many of the detections of a file may be others than eager fp32's, as a share
_OTHERS = dict(fp32=0.01, bf16=0.3, int8=0.5)


@dataclass
class Case:
    """Run one model in one way, as the measurement that it fills says."""

    subject: Subject
    row: Measurement
    accuracy: Callable[[Config], dict[str, float]] | None = None  # of what is timed, by a config's evaluator

    @property
    def device(self) -> torch.device:
        """Return where it runs."""
        return torch.device(self.row.device)

    def found(self) -> list[str]:
        """Return what to say of the detections that random weights gave, once :meth:`see` has seen them."""
        wanted, found = self.subject.made_to_find, self.row.detections
        if found is None or not self.subject.random:
            return []
        how = f'made to give {wanted} detections a picture' if wanted else 'as they are'
        return [f'random weights, {how}: {found:.4g} came out' if found else 'no detections']

    def prepare(self) -> Callable[[int], object]:
        """Return what to time, a call that takes the number of the turn, after comparing its outputs with eager fp32.

        The measurement gets its differences, labels and shape, and what is known of its file.

        Raises:
            UserError: If the outputs are wrong, or the mode is not for this model or machine.
        """
        row = self.row
        require_runtime(row.mode, row.dtype, self.device, row.scope)
        if row.scope == 'training':
            return self._training()
        # at random weights biases drown all else, so an empty image's outputs are taken off; in half precision that
        # would leave rounding alone
        signal = row.dtype == 'fp32'
        plain = Case(self.subject, replace(row, mode='eager', dtype='fp32', channels_last=False, labels=[]))
        is_reference = (row.mode, row.dtype, row.channels_last) == ('eager', 'fp32', False)
        call, outputs = self._calls(signal)
        if row.scope == 'detector':
            found, known, key = self.see(call), self.subject.found, (row.device, row.batch_size, tuple(row.shape))
            if is_reference:
                known[key] = found
            elif key not in known:
                known[key] = plain.see(plain.detector()[1])
            row.agreement = None if is_reference else agreement(found, known[key])
        if is_reference:
            return call
        if outputs:
            row.difference = relative_difference(outputs(), plain._calls(signal)[1]())
            off, most, what = row.difference, _TOLERANCE[row.dtype], 'outputs differ from eager fp32 by {:.2g} relative'
        else:
            off, most = row.agreement.off, _OTHERS[row.dtype]
            what = 'share of detections that are not those of eager fp32 is {:.3g}'
        if not off < most:
            raise UserError(
                f'{row.mode} {row.dtype} is wrong: its {what.format(off)} (at most {most:g} is accepted), so it is not '
                'timed'
            )
        return call

    def see(self, call: Callable[[int], list]) -> list[dict[str, np.ndarray]]:
        """Return what a detector finds in all of its images; the measurement gets the mean number."""
        images = [arrays_of(image) for turn in range(len(self.batches)) for image in call(turn)]
        self.row.detections = sum(len(image['scores']) for image in images) / len(images)
        return images

    @cached_property
    def batches(self) -> list[dict]:
        """Return what a detector is run on; the measurement gets its label and its shape."""
        batches, label, shape = detector_batches(self.subject, self.row.batch_size, tuple(self.row.shape))
        self.row.labels.append(label)
        self.row.shape = list(shape)
        return batches

    def _calls(self, signal: bool) -> tuple[Callable[[int], object], Callable[[], list[Tensor]] | None]:
        """Return what to time, and what gives tensors to compare, unless there are none but detections."""
        row = self.row
        if row.scope == 'detector' and MODES[row.mode].runtime_dtypes:
            return self._detector_by_runtime(), None
        if row.scope == 'detector':
            model, timed, batches = self.detector()
            images = model.data_preprocessor(copy.deepcopy(batches[0]), False)['inputs']

            def call(images: Tensor):
                with torch.inference_mode(), half(self.device, row.dtype):
                    return raw_outputs(model, images)

            return timed, lambda: _outputs(call, images, signal)
        network, images = self.network()

        def call(images: Tensor):
            with torch.inference_mode():
                return network(images)

        def logits(one: Tensor) -> list[Tensor]:
            batch = one.to(images).expand(len(images), -1, -1, -1)  # of the size that is timed
            return [next(tensors_of(call(batch)))[:1].float().cpu()]

        self.accuracy = lambda cfg: evaluate_classifier(logits, metadata_for(self.subject), cfg)
        return lambda turn: call(images), lambda: _outputs(call, images, signal)

    def _in_mode(self, model: nn.Module) -> nn.Module:
        model, labels = in_mode(model, self.row.mode, self.device, self.row.channels_last)
        self.row.labels += labels
        return model

    def network(self) -> tuple[Callable, Tensor]:
        """Return the backbone, a whole classifier or a stack, and random input of seed 0, in the case's dtype."""
        model, mode, dtype = self.subject.model, MODES[self.row.mode], DTYPES[self.row.dtype]
        network = self._in_mode(model.backbone if self.row.scope == 'backbone' else model)
        if mode.runtime_dtypes:
            images = self._images(torch.float32)
            return self._by_runtime(network, images), images
        network = network.to(dtype)
        if mode.compiler:
            network.compile(mode=mode.compiler)
        elif mode.cuda_graphs:
            network = CudaGraphs(network)
        return network, self._images(dtype)

    def _images(self, dtype: torch.dtype) -> Tensor:
        size = self.row.batch_size, self.subject.channels, *self.row.shape
        images = torch.randn(size, generator=torch.Generator().manual_seed(0))
        images = images.to(self.device, dtype)
        return images.to(memory_format=torch.channels_last) if self.row.channels_last else images

    def _training(self) -> Callable[[int], object]:
        """Return one training step of a classifier: forward, backward, AdamW; half precision is autocast.

        Stochastic depth is off, for steps of random length compare badly.
        """
        if self.row.mode != 'eager':
            raise UnsupportedModeError(f'mode {self.row.mode} cannot be trained; --scope training takes --mode eager')
        model = self._in_mode(self.subject.model).train()
        for module in model.modules():
            if hasattr(module, 'drop_prob'):
                module.drop_prob = 0.0
        images = self._images(torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def step(turn: int) -> None:
            with half(self.device, self.row.dtype):
                logits = model(images)
                truth = torch.arange(self.row.batch_size, device=self.device) % logits.shape[1]
                loss = nn.functional.cross_entropy(logits, truth)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        step.owners = model, optimizer  # of memory that was there before
        return step

    def _by_runtime(self, network: nn.Module, images: Tensor) -> Callable[[Tensor], list[Tensor]]:
        row = self.row
        file = network_file(self.subject, network, images, row.scope, row.dtype)
        row.file_size = size_of(file)
        return onnxruntime_session(file) if row.mode == 'onnxruntime' else openvino_session(file, _precision(row.dtype))

    def _detector_by_runtime(self) -> Callable[[int], list]:
        """Return what goes from resized pixels to boxes and masks in the picture's own, as ``test_step`` does."""
        row = self.row
        if row.batch_size != 1:
            raise UnsupportedModeError(f'mode {row.mode}: the file of a whole detector takes one image at a time')
        inputs = []
        for batch in self.batches:
            (pixels,), (sample,) = batch['inputs'], batch['data_samples']
            inputs.append((pixels.permute(1, 2, 0).contiguous().numpy()[None], sample.scale_factor, sample.ori_shape))
        file = detector_file(self.subject, [image[0] for image, *_ in inputs], row.dtype)
        model = ExportedModel(file, row.mode, torch.get_num_threads(), self.device.type, _precision(row.dtype))
        row.file_size = size_of(file)
        self.accuracy = lambda cfg: evaluate_detector(model, cfg)

        def call(turn: int) -> list:
            image, *where = inputs[turn % len(inputs)]
            return [model.finish(model.run(image), *where)]

        return call

    def detector(self) -> tuple[nn.Module, Callable[[int], list], list[dict]]:
        """Return the detector, its ``test_step`` on prepared batches by turn (half: autocast), and the batches."""
        row, mode = self.row, MODES[self.row.mode]
        model = self._in_mode(self.subject.model)
        if mode.compiler:
            for part in (model.backbone, getattr(model, 'neck', None)):  # the heads' shapes change with what is found
                if part is not None:
                    part.compile(mode=mode.compiler)
        elif mode.cuda_graphs:
            model.backbone = CudaGraphs(model.backbone)
        batches = self.batches

        def step(batch: dict) -> list[BaseDataElement]:
            with torch.inference_mode(), half(self.device, row.dtype):
                return model.test_step(dict(batch))

        def predict(pixels: Tensor, sample: BaseDataElement) -> None:
            (found,) = step(dict(inputs=[pixels], data_samples=[sample]))
            widen(found)
            sample.pred_instances = found.pred_instances

        self.accuracy = lambda cfg: evaluate_by(predict, cfg)
        return model, lambda turn: step(batches[turn % len(batches)]), batches


def _precision(dtype: str) -> str:
    """Return what a runtime is told: what is int8 is so in the file."""
    return 'fp32' if dtype == 'int8' else dtype


def raw_outputs(model: nn.Module, images: Tensor) -> list:
    """Return what a detector computes before anything is chosen by a threshold: feature maps, and the heads' maps.

    RoI heads see fixed boxes. Heads of other kinds (cascades, transformers) are left out.
    """
    maps = model.extract_feat(images)
    outputs = [maps]
    if isinstance(model, SingleStageDetector):
        outputs.append(model.bbox_head(maps))
    elif isinstance(model, TwoStageDetector):
        outputs += [model.rpn_head(maps)] if model.with_rpn else []
        heads, (height, width) = model.roi_head, images.shape[2:]
        # the whole image, its middle and its corners, of every image
        boxes = images.new_tensor([[0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75], [0, 0, 0.5, 0.5], [0.7, 0.7, 1, 1]])
        boxes = boxes * boxes.new_tensor([width, height, width, height])
        rois = torch.cat([torch.cat([boxes.new_full((4, 1), i), boxes], 1) for i in range(len(images))])
        if type(heads) is StandardRoIHead:
            for kind in ('bbox', 'mask') if heads.with_mask else ('bbox',):
                extract = getattr(heads, f'{kind}_roi_extractor')
                outputs.append(getattr(heads, f'{kind}_head')(extract(maps[: extract.num_inputs], rois)))
    return outputs


def _outputs(network: Callable, images: Tensor, signal: bool) -> list[Tensor]:
    outputs = [tensor.double() for tensor in tensors_of(network(images))]
    if not signal:
        return outputs
    empty = tensors_of(network(torch.zeros_like(images)))
    return [tensor - nothing.double() for tensor, nothing in zip(outputs, empty, strict=True)]
