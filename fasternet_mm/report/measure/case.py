"""One way to run a model: what is timed, after its outputs were compared with those of eager fp32."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from mmdet.models import SingleStageDetector, StandardRoIHead, TwoStageDetector
from torch import Tensor, nn

from ...deploy import CudaGraphs, onnxruntime_session, openvino_session, to_onnx
from ...deploy.onnx import relative_difference, tensors_of
from ...errors import UserError
from ..schema import MODES, Measurement
from .modes import DTYPES, UnsupportedModeError, half, in_mode
from .subject import Subject, detector_batches

# how far a mode's outputs may be from eager fp32, relative: what each dtype's rounding amounts to, and some
_TOLERANCE = dict(fp32=1e-4, fp16=5e-2, bf16=1e-1)


@dataclass
class Case:
    """Run one model in one way, as the measurement that it fills says."""

    subject: Subject
    row: Measurement

    @property
    def device(self) -> torch.device:
        """Return where it runs."""
        return torch.device(self.row.device)

    def found(self) -> list[str]:
        """Return what to say of the detections that random weights gave in the calls so far, if it is a detector."""
        wanted, found = self.subject.made_to_find, self.row.detections
        if found is None or not self.subject.random:
            return []
        how = f'made to give {wanted} detections a picture' if wanted else 'as they are'
        return [f'random weights, {how}: {found:.4g} came out' if found else 'no detections']

    def prepare(self) -> Callable[[int], object]:
        """Return what to time, a call that takes the number of the turn, after comparing its outputs with eager fp32.

        The measurement gets its difference, labels and shape.

        Raises:
            UserError: If the outputs are wrong, or the mode is not for this model or machine.
        """
        row = self.row
        if row.scope == 'training':
            return self._training()
        # at random weights biases drown all else, so an empty image's outputs are taken off; in half precision that
        # would leave rounding alone
        signal = row.dtype == 'fp32'
        plain = replace(row, mode='eager', dtype='fp32', channels_last=False, labels=[])
        call, outputs = self._calls(signal)
        if (row.mode, row.dtype, row.channels_last) != ('eager', 'fp32', False):
            row.difference = relative_difference(outputs(), Case(self.subject, plain)._calls(signal)[1]())
            if not row.difference < _TOLERANCE[row.dtype]:
                raise UserError(
                    f'{row.mode} {row.dtype} is wrong: its outputs differ from eager fp32 by {row.difference:.2g} '
                    f'relative (at most {_TOLERANCE[row.dtype]:g} is accepted), so it is not timed'
                )
        return call

    def _calls(self, signal: bool) -> tuple[Callable[[int], object], Callable[[], list[Tensor]]]:
        """Return what to time, and what gives tensors to compare."""
        if self.row.scope == 'detector':
            model, timed, batches = self.detector()
            images = model.data_preprocessor(copy.deepcopy(batches[0]), False)['inputs']

            def call(images: Tensor):
                with torch.inference_mode(), half(self.device, self.row.dtype):
                    return raw_outputs(model, images)

            return timed, lambda: _outputs(call, images, signal)
        network, images = self.network()

        def call(images: Tensor):
            with torch.inference_mode():
                return network(images)

        return lambda turn: call(images), lambda: _outputs(call, images, signal)

    def _in_mode(self, model: nn.Module) -> nn.Module:
        model, labels = in_mode(model, self.row.mode, self.device, self.row.channels_last)
        self.row.labels += labels
        return model

    def network(self) -> tuple[Callable, Tensor]:
        """Return the backbone, or a whole classifier, and random images of seed 0 for it, in the case's dtype."""
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
        images = torch.randn(self.row.batch_size, 3, *self.row.shape, generator=torch.Generator().manual_seed(0))
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
        mode, dtypes = self.row.mode, MODES[self.row.mode].runtime_dtypes
        if self.row.channels_last:
            raise UnsupportedModeError(f'mode {mode} has its own memory format: leave --channels-last out')
        if self.device.type != 'cpu' or self.row.dtype not in dtypes:
            raise UnsupportedModeError(f'mode {mode} is for --device cpu in {" or ".join(dtypes)}')
        with torch.no_grad():
            outputs = [f'output{number}' for number, _ in enumerate(tensors_of(network(images)))]
        file = to_onnx(network, images, outputs)
        return onnxruntime_session(file) if mode == 'onnxruntime' else openvino_session(file, self.row.dtype)

    def detector(self) -> tuple[nn.Module, Callable[[int], object], list[dict]]:
        """Return the detector, its ``test_step`` on prepared batches by turn (half: autocast), and the batches."""
        row, mode = self.row, MODES[self.row.mode]
        if mode.runtime_dtypes:
            raise UnsupportedModeError(f'mode {row.mode} is for backbones and classifiers, not for whole detectors')
        model = self._in_mode(self.subject.model)
        if mode.compiler:
            for part in (model.backbone, getattr(model, 'neck', None)):  # the heads' shapes change with what is found
                if part is not None:
                    part.compile(mode=mode.compiler)
        elif mode.cuda_graphs:
            model.backbone = CudaGraphs(model.backbone)
        batches, label, shape = detector_batches(self.subject, row.batch_size, tuple(row.shape))
        row.labels.append(label)
        row.shape = list(shape)
        found = {}

        def call(turn: int):
            number = turn % len(batches)
            with torch.inference_mode(), half(self.device, row.dtype):
                images = model.test_step(dict(batches[number]))
            found[number] = sum(len(image.pred_instances) for image in images) / len(images)
            row.detections = sum(found.values()) / len(found)
            return images

        return model, call, batches


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
