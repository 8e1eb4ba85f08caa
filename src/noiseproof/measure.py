"""Accuracy and cross-entropy of a network at given parameters: the one place where predictions are counted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.parameters import Params, functional_call, inference_mode
from noiseproof.randomness import stochastic


@dataclass(frozen=True)
class Measured:
    """`correct` of `n` samples, and the mean cross-entropy in nats."""

    correct: int
    n: int
    loss: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.n


@torch.no_grad()
def measure(network: nn.Module, params: Params, x: Tensor, y: Tensor, block: int = 100) -> Measured:
    """Return accuracy and cross-entropy of the network at `params` on x [N, …], y [N], in inference mode, `block` samples at a time."""
    correct = torch.zeros((), dtype=torch.int64, device=y.device)
    loss = torch.zeros((), dtype=torch.float64, device=y.device)
    buffers = {name: b.clone() for name, b in network.named_buffers()}
    # every measurement draws the same: chips are compared on the same inputs
    with inference_mode(network), stochastic(0, running=True):
        for images, labels in zip(x.split(block), y.split(block), strict=True):
            logits = functional_call(network, (params, buffers), (images,))
            correct += (logits.argmax(-1) == labels).sum()
            loss += cross_entropy(logits, labels, reduction="sum")
    return Measured(int(correct), len(y), float(loss) / len(y))
