"""The seeded weights and images behind ``data/golden_*.npz``, which the paper authors' own code computed."""

import json
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parents[1] / 'data'
LAYOUT = json.loads((DATA / 'official_layout.json').read_text())
TABLES = json.loads((DATA / 'tables.json').read_text())
VARIANTS = list(LAYOUT)


def official_state_dict(arch: str, kind: str, seed: int) -> dict[str, torch.Tensor]:
    """Weights in the official layout of `arch` ('t0' ... 'l') and `kind` ('classification', 'detection_backbone').

    Drawn from one seeded stream over the sorted names, with the distributions that the golden outputs rest on.
    """
    rng = np.random.RandomState(seed)
    weights = {}
    for key, shape in sorted(LAYOUT[arch][kind].items()):
        if key.endswith('num_batches_tracked'):
            weights[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        norm = len(shape) == 1 and key != 'head.bias'
        if key.endswith('running_var') or (norm and key.endswith('weight')):
            value = rng.uniform(0.5, 1.5, shape)
        elif key.endswith(('running_mean', 'bias')):
            value = 0.1 * rng.standard_normal(shape)
        else:
            value = rng.standard_normal(shape) * np.sqrt(1.0 / np.prod(shape[1:]))
        weights[key] = torch.from_numpy(np.asarray(value, np.float32))
    return weights


def image(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A standard-normal NCHW input."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))
