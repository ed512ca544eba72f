"""What a number was measured on."""

import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

import torch

from ...machine import capability, installed, processor
from ..schema import Git, Gpu, Host, Snapshot

_PACKAGES = (
    'fasternet_mm torch torchvision mmengine mmcv mmcv-lite mmdet mmpretrain pycocotools timm numpy onnx onnxscript '
    'onnxruntime openvino nncf triton'
).split()
_GPU_FIELDS = dict(
    driver='driver_version', sm_clock_mhz='clocks.sm', max_sm_clock_mhz='clocks.max.sm',
    temperature_c='temperature.gpu', power_w='power.draw', utilization_percent='utilization.gpu',
    throttle_reasons='clocks_throttle_reasons.active',
)  # fmt: skip


def snapshot(device: torch.device) -> Snapshot:
    """Describe the machine as it is now."""
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else None
    return Snapshot(
        host=Host(platform.platform(), f'{processor()}, {capability()}', os.cpu_count(), load),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        packages=installed(_PACKAGES),
        git=_git(),
        gpu=_gpu(device) if device.type == 'cuda' else None,
    )


def load_labels(before: Snapshot) -> list[str]:
    """Return what in a snapshot from before the first measurement belongs beside every number: a busy machine."""
    load, cores = before.host.load_average, before.host.cores
    if before.gpu is not None:
        busy = before.gpu.utilization_percent or 0
        return [f'the GPU was busy before the first measurement: {busy:.0f} % utilised'] if busy > 10 else []
    if load is not None and load > 0.5 * cores:
        return [f'the CPU was busy: load average {load:.1f} on {cores} cores before the first measurement']
    return []


def throttle_labels(device: torch.device) -> list[str]:
    """Return what holds the GPU's clocks down; ask right after a measurement, for an idle GPU is never throttled."""
    reasons = (_gpu(device).throttle_reasons or 0) if device.type == 'cuda' else 0
    reasons &= ~1  # bit 0 is "idle"
    return [f'the GPU was throttled: reasons {reasons:#x}'] if reasons else []


def _output(*command: str, cwd: Path | None = None) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, cwd=cwd).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _git() -> Git | None:
    """Return the revision of the clone that this package is in, if it is in one."""
    clone = Path(__file__).parents[3]
    if not (clone / '.git').exists():  # an installed wheel, perhaps inside somebody else's clone
        return None
    revision = _output('git', 'rev-parse', 'HEAD', cwd=clone)
    status = _output('git', 'status', '--porcelain', '--untracked-files=no', cwd=clone)
    return None if revision is None else Git(revision, dirty=bool(status))


def _gpu(device: torch.device) -> Gpu:
    index = device.index or 0
    found = Gpu(torch.cuda.get_device_name(index), torch.version.cuda, torch.backends.cudnn.version())
    found.tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    uuid = getattr(torch.cuda.get_device_properties(index), 'uuid', None)
    query = ('nvidia-smi', f'--query-gpu={",".join(_GPU_FIELDS.values())}', '--format=csv,noheader,nounits')
    line = _output(*query, '-i', f'GPU-{uuid}' if uuid else str(index))
    values = line.splitlines()[0].split(', ') if line else []
    for name, value in zip(_GPU_FIELDS, values) if len(values) == len(_GPU_FIELDS) else ():
        with suppress(ValueError):  # "[N/A]"
            read = dict(driver=str, throttle_reasons=lambda bits: int(bits, 16)).get(name, float)
            setattr(found, name, read(value))
    return found
