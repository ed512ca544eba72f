"""What a number was measured on, and a bug was seen on: the processor and the installed packages."""

import os
import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_CPUINFO = Path('/proc/cpuinfo')  # Linux alone has it
_LIMITS = ('ATEN_CPU_CAPABILITY', 'ONEDNN_MAX_CPU_ISA')


def processor() -> str:
    """Return the processor's name, and its family and model where x86's Linux tells: clouds cut the name short."""
    name = _cpuinfo('model name', 'Model') or platform.processor() or platform.machine()
    family, model = _cpuinfo('cpu family'), _cpuinfo('model')
    return f'{name} (family {family}, model {model})' if family and model else name


def instruction_sets() -> str:
    """Return those that decide which kernels run: vectors and half precision, of x86 and of ARM."""
    known = r'\b(?:avx|amx|f16c|fma|asimd|sve|bf16|i8mm|sme(?!p))\w*'
    return ' '.join(sorted(set(re.findall(known, _cpuinfo('flags', 'Features'))))) or 'unknown ones'


def capability() -> str:
    """Return the widest vectors that torch uses, and whether the processor computes in bf16: 'AVX512 with bf16'.

    What the environment keeps torch, oneDNN and OpenVINO from using is named, too.
    """
    half = 'with bf16' if 'bf16' in instruction_sets() else 'without bf16'
    limits = [f'{name}={os.environ[name]}' for name in _LIMITS if name in os.environ]
    limited = f', limited by {" ".join(limits)}' if limits else ''
    return f'{torch.backends.cpu.get_cpu_capability()} {half}{limited}'


def installed(packages: list[str]) -> dict[str, str]:
    """Return the versions of those of `packages` that are installed, by name."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _cpuinfo(*keys: str) -> str:
    """Return the value of the first of `keys` that Linux tells of its processor, or ''."""
    text = _CPUINFO.read_text() if _CPUINFO.is_file() else ''
    found = re.search(rf'^(?:{"|".join(keys)})\s*:\s*(.*)$', text, re.MULTILINE)
    return found[1] if found else ''
