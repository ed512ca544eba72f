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
from .modes import COMPILERS, DTYPES, RUNTIMES, compiled, half, in_mode
from .subject import Subject, detector_batches

# how far a mode's outputs may be from eager fp32, relative: what each dtype's rounding amounts to, and some
_TOLERANCE = dict(fp32=1e-4, fp16=5e-2, bf16=1e-1)


@dataclass
class Case:
    """One way to run one model: what a measurement is of."""

    subject: Subject
    scope: str
    mode: str
    dtype: str
    batch_size: int
    shape: tuple[int, int]
    device: torch.device
    channels_last: bool

    def prepare(self) -> tuple[Callable[[int], object], float | None, list[str]]:
        """What to time, after its outputs were compared with eager fp32.

        Returns:
            tuple[Callable, float | None, list[str]]: A call that takes the number of the turn, the relative
            difference of its outputs (None for eager fp32 itself), and labels.

        Raises:
            UserError: If the outputs are wrong.
        """
        # at random weights biases drown all else, so an empty image's outputs are taken off; in half precision that
        # would leave rounding alone
        signal = self.dtype == 'fp32'
        if self.scope == 'training':
            return self.training(), None, []
        call, outputs, labels, self.shape = self._calls(signal)
        if (self.mode, self.dtype, self.channels_last) == ('eager', 'fp32', False):
            return call, None, labels
        plain = replace(self, mode='eager', dtype='fp32', channels_last=False)
        difference = relative_difference(outputs(), plain._calls(signal)[1]())
        if not difference < _TOLERANCE[self.dtype]:
            raise UserError(
                f'{self.mode} {self.dtype} is wrong: its outputs differ from eager fp32 by {difference:.2g} relative '
                f'(at most {_TOLERANCE[self.dtype]:g} is accepted), so it is not timed'
            )
        return call, difference, labels

    def _calls(self, signal: bool) -> tuple[Callable, Callable, list[str], tuple[int, int]]:
        """What to time, what gives tensors to compare, labels, and the images' (largest) size."""
        if self.scope == 'detector':
            model, call, labels, shape = self.detector()
            batch = copy.deepcopy(detector_batches(self.subject, self.batch_size, self.shape)[0][0])

            def outputs(images: Tensor):
                with torch.inference_mode(), half(self.device, self.dtype):
                    return raw_outputs(model, images)

            images = model.data_preprocessor(batch, False)['inputs']
            return call, lambda: _outputs(outputs, images, signal), labels, shape
        network, images, labels = self.network()

        def call(images: Tensor):
            with torch.inference_mode():
                return network(images)

        return lambda turn: call(images), lambda: _outputs(call, images, signal), labels, self.shape

    def network(self) -> tuple[Callable, Tensor, list[str]]:
        """The backbone, or a whole classifier, and random images of seed 0 for it, in the case's dtype; labels."""
        model, dtype = self.subject.model, DTYPES[self.dtype]
        model = model.backbone if self.scope == 'backbone' else model
        network, labels = in_mode(model, self.mode, self.device, self.channels_last)
        if self.mode in RUNTIMES:
            images = self._images(torch.float32)
            return self._by_runtime(network, images), images, labels
        network, images = network.to(dtype), self._images(dtype)
        if self.mode == 'graphs':
            network = CudaGraphs(network)
        if self.mode in COMPILERS:
            compiled(network, self.mode)
        return network, images, labels

    def _images(self, dtype: torch.dtype) -> Tensor:
        images = torch.randn(self.batch_size, 3, *self.shape, generator=torch.Generator().manual_seed(0))
        images = images.to(self.device, dtype)
        return images.to(memory_format=torch.channels_last) if self.channels_last else images

    def training(self) -> Callable:
        """One training step of a classifier: forward, backward, AdamW; half precision is autocast.

        Stochastic depth is off, for steps of random length compare badly.
        """
        if self.mode != 'eager':
            raise UserError(f'mode {self.mode} cannot be trained; --scope training takes --mode eager')
        model = in_mode(self.subject.model, self.mode, self.device, self.channels_last)[0].train()
        for module in model.modules():
            if hasattr(module, 'drop_prob'):
                module.drop_prob = 0.0
        images = self._images(torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def step(turn: int) -> None:
            with half(self.device, self.dtype):
                logits = model(images)
                truth = torch.arange(self.batch_size, device=self.device) % logits.shape[1]
                loss = nn.functional.cross_entropy(logits, truth)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        step.owners = model, optimizer  # of memory that was there before
        return step

    def _by_runtime(self, network: nn.Module, images: Tensor) -> Callable:
        if self.channels_last:
            raise UserError(f'mode {self.mode} has its own memory format: leave --channels-last out')
        precisions = dict(onnxruntime=('fp32',), openvino=('fp32', 'bf16'))[self.mode]
        if self.device.type != 'cpu' or self.dtype not in precisions:
            raise UserError(f'mode {self.mode} is for --device cpu in {" or ".join(precisions)}')
        with torch.no_grad():
            outputs = [f'output{number}' for number, _ in enumerate(tensors_of(network(images)))]
        file = to_onnx(network, images, outputs)
        return onnxruntime_session(file) if self.mode == 'onnxruntime' else openvino_session(file, self.dtype)

    def detector(self) -> tuple[nn.Module, Callable, list[str], tuple[int, int]]:
        """The detector, its ``test_step`` on prepared images by turn (half: autocast), labels, and the images' size."""
        if self.mode in RUNTIMES:
            raise UserError(f'mode {self.mode} is for backbones and classifiers, not for whole detectors')
        model, made = in_mode(self.subject.model, self.mode, self.device, self.channels_last)
        if self.mode == 'graphs':
            model.backbone = CudaGraphs(model.backbone)
        if self.mode in COMPILERS:
            for name in ('backbone', 'neck'):  # the heads' shapes change with what is found
                if getattr(model, name, None) is not None:
                    compiled(getattr(model, name), self.mode)
        batches, labels, shape = detector_batches(self.subject, self.batch_size, self.shape)
        labels = made + labels

        def call(turn: int):
            with torch.inference_mode(), half(self.device, self.dtype):
                return model.test_step(dict(batches[turn % len(batches)]))

        return model, call, labels, shape


def raw_outputs(model: nn.Module, images: Tensor) -> list:
    """What a detector computes from images before anything is chosen by a threshold: feature maps, and the heads' maps.

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
