"""Common parts of the tests: one thread (tests run side by side), small real data, one fast network."""

import pytest
import torch
from torch import nn

from noiseproof import data
from noiseproof.networks import CNN, MLP
from noiseproof.randomness import generator

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> data.Splits:
    """Real handwritten digits, few of them."""
    return data.load("digits", limit_train=200, limit_test=100)


@pytest.fixture
def mlp(digits: data.Splits) -> nn.Module:
    return MLP(hidden=(32,)).build(digits.task, generator("weights", 0))


@pytest.fixture
def cnn(digits: data.Splits) -> nn.Module:
    return CNN().build(digits.task, generator("weights", 0))


class WithBatchNorm(nn.Module):
    """A module of a user's own, with all that depends on the mode: batch norm, a dropout layer, a dropout function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(4 * 13 * 13, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.drop(torch.relu(self.norm(self.conv(x))))
        return self.out(nn.functional.dropout(hidden.flatten(1), 0.2, self.training))


@pytest.fixture
def outside() -> nn.Module:
    torch.manual_seed(0)
    return WithBatchNorm()
