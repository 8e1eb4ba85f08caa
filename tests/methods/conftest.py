"""One network of every kind that a method must train, each with a batch that fits it."""

from collections.abc import Callable

import pytest
import snntorch
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.data import Splits, Task
from noiseproof.networks import CNN, LSNN, MLP, VGG5
from noiseproof.randomness import generator

Case = tuple[nn.Module, tuple[Tensor, Tensor]]
SEQUENCES = Task("sequences", (12, 5), 4, (0.0,) * 5, (1.0,) * 5, (-3.0, 3.0))
# as small as the network takes them: its dense layers have 4096 units whatever the image
TINY = Task("tiny", (1, 4, 4), 4, (0.5,), (0.3,), (0.0, 1.0))


def snntorch_network() -> nn.Module:
    torch.manual_seed(0)
    own = nn.Sequential(
        *(nn.Conv2d(1, 4, 5, stride=4), snntorch.Leaky(beta=0.8, threshold=0.3, learn_beta=True, init_hidden=True), nn.Flatten()),
        *(nn.Linear(144, 10), snntorch.Leaky(beta=0.8, init_hidden=True, output=True)),
    )
    return npf.adapt(own, steps=4, output=1, readout="mean")


@pytest.fixture(scope="module")
def vgg5() -> nn.Module:
    """For tests that leave it as it is: 17 M parameters take a second to draw."""
    return VGG5(steps=2, threshold=0.05, dropout=0.2).build(TINY, generator("weights", 0))


@pytest.fixture
def case_of(digits: Splits, request: pytest.FixtureRequest) -> Callable[[str], Case]:
    """The network of a kind, in training mode, and a batch."""

    def made(kind: str) -> Case:
        images = (digits.train.x[:8], digits.train.y[:8])
        draw = torch.Generator().manual_seed(0)
        if kind == "mlp":
            found: Case = MLP(hidden=(32,)).build(digits.task, generator("weights", 0)), images
        elif kind == "cnn":
            found = CNN().build(digits.task, generator("weights", 0)), images
        elif kind == "outside":
            found = npf.adapt(request.getfixturevalue("outside")), images
        elif kind == "snntorch":
            found = snntorch_network(), images
        elif kind == "lsnn":
            x = torch.randn(8, 12, 5, generator=draw).clamp_(-3, 3)
            found = LSNN(units=20).build(SEQUENCES, generator("weights", 0)), (x, torch.arange(8) % 4)
        else:
            x = torch.rand(2, 1, 4, 4, generator=draw)
            found = request.getfixturevalue("vgg5"), (x, torch.arange(2))
        found[0].train()
        return found

    return made
