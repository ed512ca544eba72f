from pathlib import Path

import pytest
import torch
from torch import nn

from fasternet_mm.study import Preprocessing, Subject


@pytest.fixture
def pictures(image_folder) -> Path:
    """Twelve pictures in three folders."""
    return image_folder / 'train'


class Net(nn.Module):
    """A stem and four stages of 3x3 convolutions, at strides 2 to 16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.body = nn.Sequential()
        for number, (channels, stride) in enumerate(((16, 1), (32, 2), (32, 2), (32, 2))):
            before = self.body[-3].out_channels if number else 16
            self.body.append(nn.Conv2d(before, channels, 3, stride, 1))
            self.body.append(nn.ReLU(inplace=True))
            self.body.append(nn.Conv2d(channels, channels, 3, 1, 1, groups=4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.stem(x).relu())


def make_net() -> Subject:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net().eval()
    return Subject('net', model, Preprocessing(32, 32), model)


@pytest.fixture
def net() -> Subject:
    return make_net()
