"""A model made ready to be measured, from a config or from a row of the paper's tables."""

import copy
import hashlib
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch._dynamo
import torch._inductor.config
from mmcv.cnn import fuse_conv_bn
from mmdet.models import SingleStageDetector, StandardRoIHead, TwoStageDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoint import checkpoint_sha256, require_loadable
from ..deploy import CudaGraphs, onnxruntime_session, openvino_session, switch_to_deploy, to_onnx
from ..errors import UserError
from ..models import FasterNet
from .suites import published_for

_COMPILERS = {
    'compile': 'default',
    'compile-max-autotune': 'max-autotune',
    'compile-reduce-overhead': 'reduce-overhead',
}
_RUNTIMES = ('onnxruntime', 'openvino')
MODES = ('eager', 'fused', 'deploy', 'graphs', *_COMPILERS, *_RUNTIMES)
# those of which accuracy is measured, too, and a detector's time can be split
PLAIN_MODES = ('eager', 'fused', 'deploy')
DTYPES = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)
# how far a mode's outputs may be from eager fp32, relative: what each dtype's rounding amounts to, and some
_TOLERANCE = dict(fp32=1e-4, fp16=5e-2, bf16=1e-1)
_IMAGES = 8


@dataclass(eq=False)
class Subject:
    """What is measured.

    Attributes:
        name (str): In every table.
        kind (str): 'classifier' or 'detector'.
        model (nn.Module): In evaluation mode, on the CPU, fp32.
        cfg (Config, optional): Where the data and the evaluator come from.
        config, checkpoint (str, optional): Paths.
        published (dict, optional): The paper's row.
        shape (tuple[int, int], optional): H, W that the model is meant for, where the kind does not say it.
        labels (list[str]): Stand beside every number of this model.
    """

    name: str
    kind: str
    model: nn.Module
    cfg: Config | None = None
    config: str | None = None
    checkpoint: str | None = None
    published: dict | None = None
    shape: tuple[int, int] | None = None
    labels: list[str] = field(default_factory=list)
    batches: dict = field(default_factory=dict)  # see detector_batches

    def identity(self) -> dict:
        """``name`` to ``labels`` of a model in a report."""
        text = self.cfg.pretty_text.encode() if self.cfg is not None else None
        return dict(
            name=self.name,
            kind=self.kind,
            config=self.config,
            config_sha256=hashlib.sha256(text).hexdigest() if text else None,
            checkpoint=self.checkpoint,
            checkpoint_sha256=checkpoint_sha256(self.checkpoint),
            labels=list(self.labels),
            published=self.published,
        )


def from_config(cfg: Config, config: str, checkpoint: str | None) -> Subject:
    """Build the model of an mmdet or mmpretrain config.

    Args:
        cfg (Config): The config.
        config (str): Its path; the file's name names the model.
        checkpoint (str, optional): File, URL or name; without it, weights are random and labelled so.

    Raises:
        UserError: If the config is of neither library, or the checkpoint does not fit.
    """
    scope = cfg.get('default_scope')
    if scope not in ('mmdet', 'mmpretrain'):
        raise UserError(f'{config}: default_scope is {scope!r}, but a report is for configs of mmdet or mmpretrain')
    settings = copy.deepcopy(cfg.model)
    if scope == 'mmpretrain' and cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(settings)
    labels = []
    if checkpoint is None:
        labels.append('random weights')
    else:
        require_loadable(model, CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
    kind = 'detector' if scope == 'mmdet' else 'classifier'
    return Subject(Path(config).stem, kind, model.eval(), cfg, config, checkpoint, published_for(config), labels=labels)


class _TimmFeatures(nn.Module):
    """What a classifier of timm computes before its head."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.forward_features(images)


class _Timm(nn.Module):
    """A classifier of timm that has a ``backbone``, as mm's have; both are the same modules."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.backbone = _TimmFeatures(classifier)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(images)


def from_timm(source: str) -> Subject:
    """Build a classifier of timm, ``timm://NAME``, with random weights; errors as :func:`require_timm`."""
    require_timm(source)
    import timm

    name = source.removeprefix('timm://')
    model = _Timm(timm.create_model(name, pretrained=False)).eval()
    return Subject(f'timm {name}', 'classifier', model, config=source, labels=['random weights'])


def require_timm(source: str) -> None:
    """Raise UserError if timm is missing or does not have the model that `source`, ``timm://NAME``, names."""
    name = source.removeprefix('timm://')
    if importlib.util.find_spec('timm') is None:
        raise UserError(f'{source}: timm is not installed: pip install timm')
    import timm

    if not timm.is_model(name):
        raise UserError(f'{source}: timm {timm.__version__} has no model {name!r}; timm.list_models() names them')


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

    def prepare(self) -> tuple[Callable[[], object], float | None, list[str]]:
        """What to time, after its outputs were compared with eager fp32.

        Returns:
            tuple[Callable, float | None, list[str]]: A call without arguments, the relative difference of its outputs
            (None for eager fp32 itself), and labels.

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
        difference = _relative(outputs(), plain._calls(signal)[1]())
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
        images = torch.randn(self.batch_size, 3, *self.shape, generator=torch.Generator().manual_seed(0))
        if self.mode in _RUNTIMES:
            return self._by_runtime(network, images), images, labels
        network, images = network.to(dtype), images.to(self.device, dtype)
        if self.channels_last:
            images = images.to(memory_format=torch.channels_last)
        if self.mode == 'graphs':
            network = CudaGraphs(network)
        if self.mode in _COMPILERS:
            compiled(network, self.mode)
        return network, images, labels

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
        images = torch.randn(self.batch_size, 3, *self.shape, generator=torch.Generator().manual_seed(0))
        images = images.to(self.device)
        if self.channels_last:
            images = images.to(memory_format=torch.channels_last)
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
            outputs = [f'output{number}' for number, _ in enumerate(_tensors(network(images)))]
        file = to_onnx(network, images, outputs)
        return onnxruntime_session(file) if self.mode == 'onnxruntime' else openvino_session(file, self.dtype)

    def detector(self) -> tuple[nn.Module, Callable, list[str], tuple[int, int]]:
        """The detector, its ``test_step`` on prepared images by turn (half: autocast), labels, and the images' size."""
        if self.mode in _RUNTIMES:
            raise UserError(f'mode {self.mode} is for backbones and classifiers, not for whole detectors')
        model, made = in_mode(self.subject.model, self.mode, self.device, self.channels_last)
        if self.mode == 'graphs':
            model.backbone = CudaGraphs(model.backbone)
        if self.mode in _COMPILERS:
            for name in ('backbone', 'neck'):  # the heads' shapes change with what is found
                if getattr(model, name, None) is not None:
                    compiled(getattr(model, name), self.mode)
        batches, labels, shape = detector_batches(self.subject, self.batch_size, self.shape)
        labels = made + labels

        def call(turn: int):
            with torch.inference_mode(), half(self.device, self.dtype):
                return model.test_step(dict(batches[turn % len(batches)]))

        return model, call, labels, shape


def detector_batches(
    subject: Subject, batch_size: int, shape: tuple[int, int]
) -> tuple[list[dict], list[str], tuple[int, int]]:
    """Batches for ``test_step``: the first images of the config's test set, or noise where it is not here; kept.

    Returns:
        tuple[list[dict], list[str], tuple[int, int]]: Batches as a DataLoader gives them, what to say of them, and the
        largest height and width.
    """
    if (batch_size, shape) in subject.batches:
        return subject.batches[batch_size, shape]
    given, dataset = shape, test_dataset(subject)
    if dataset is not None:
        samples = [dataset[i] for i in range(min(_IMAGES * batch_size, len(dataset)))]
        sizes = sorted({'x'.join(map(str, sample['inputs'].shape[1:])) for sample in samples})
        label = f'on {len(samples)} preprocessed images of the test set, in turn, of {", ".join(sizes)}'
        shape = tuple(max(sample['inputs'].shape[side] for sample in samples) for side in (1, 2))
        samples = list(itertools.islice(itertools.cycle(samples), -(-len(samples) // batch_size) * batch_size))
    else:
        noise = np.random.RandomState(0).randint(0, 256, (3, *shape), np.uint8)
        meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), batch_input_shape=shape, pad_shape=shape)
        samples = [
            dict(inputs=torch.from_numpy(noise), data_samples=DetDataSample(metainfo=meta)) for _ in range(batch_size)
        ]
        label = f'on noise of {shape[0]} x {shape[1]} instead of photographs'
    batches = [pseudo_collate(samples[i : i + batch_size]) for i in range(0, len(samples), batch_size)]
    subject.batches[batch_size, given] = batches, [label], shape
    return subject.batches[batch_size, given]


def test_dataset(subject: Subject):
    """The config's test set, or None where there is none or its files are not here."""
    loader = subject.cfg and subject.cfg.get('test_dataloader')
    if not loader:
        return None
    settings = copy.deepcopy(loader.dataset)
    annotations = os.path.join(settings.get('data_root') or '', settings.get('ann_file') or '')
    if not os.path.exists(annotations):
        return None
    with DefaultScope.overwrite_default_scope(subject.cfg.default_scope):
        return DATASETS.build(settings)


def in_mode(
    model: nn.Module, mode: str, device: torch.device, channels_last: bool = False
) -> tuple[nn.Module, list[str]]:
    """A copy of `model`, changed as a mode says, on a device; what is to be said of it. Compiling is left out."""
    if mode in ('graphs', 'compile-reduce-overhead') and device.type != 'cuda':
        raise UserError(f'mode {mode} is for --device cuda')
    model, labels = copy.deepcopy(model), []
    if mode == 'fused':
        norms = _count_norms(model)
        model = fused(model)
        if _count_norms(model) == norms:
            labels.append('nothing was fused: no BN follows a convolution')
    elif mode in ('deploy', 'graphs', *_RUNTIMES):
        backbone = getattr(model, 'backbone', model)
        if any(isinstance(module, FasterNet) for module in model.modules()):
            switch_to_deploy(model)
        elif hasattr(backbone, 'switch_to_deploy'):  # mmpretrain's RepVGG, say
            backbone.switch_to_deploy()
        elif mode in ('deploy', 'graphs'):
            raise UserError(f'mode {mode}: neither a FasterNet nor a backbone with switch_to_deploy()')
        else:
            model = fused(model)
    # what has its own order, as the deploy form, keeps it
    return model.to(device, **(dict(memory_format=torch.channels_last) if channels_last else {})), labels


def _count_norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def half(device: torch.device, dtype: str) -> torch.autocast:
    """Autocast to a dtype; of no effect for fp32."""
    return torch.autocast(device.type, DTYPES[dtype], enabled=dtype != 'fp32')


def compiled(module: nn.Module, mode: str) -> None:
    """Compile a module where it is, at its best: with weights frozen, inductor folds BN and orders weights once."""
    torch._inductor.config.freezing = True  # also read while tracing, which is why it is no option of compile()
    limit = 'recompile_limit' if hasattr(torch._dynamo.config, 'recompile_limit') else 'cache_size_limit'
    setattr(torch._dynamo.config, limit, 64)  # all modules share one; beyond it eager runs, silently
    module.compile(mode=_COMPILERS[mode])


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


def fused(model: nn.Module) -> nn.Module:
    """`model`, changed in place: BN folded into the convolutions before it, as mmcv does by the order of registration.

    timm's norms include an activation, which stays.
    """
    kept = {
        name: nn.Sequential(module.drop, module.act)
        for name, module in model.named_modules()
        if type(module).__name__ == 'BatchNormAct2d'
    }
    model = fuse_conv_bn(model)
    for name, activation in kept.items():
        parent, _, child = name.rpartition('.')
        if isinstance(model.get_submodule(name), nn.Identity):
            setattr(model.get_submodule(parent), child, activation)
    return model


def _tensors(outputs) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    outputs = outputs.values() if isinstance(outputs, dict) else outputs
    for part in () if isinstance(outputs, Tensor) else outputs:
        yield from _tensors(part)


def _outputs(network: Callable, images: Tensor, signal: bool) -> list[Tensor]:
    outputs = [tensor.double() for tensor in _tensors(network(images))]
    if not signal:
        return outputs
    empty = _tensors(network(torch.zeros_like(images)))
    return [tensor - nothing.double() for tensor, nothing in zip(outputs, empty, strict=True)]


def _relative(got: list[Tensor], want: list[Tensor]) -> float:
    """Norm of the difference over the norm of what is wanted, of the tensor that is off the most."""
    return max(float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in zip(got, want, strict=True))
