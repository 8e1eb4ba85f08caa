from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.errors import require
from noiseproof.neurons.equation import Emitted
from noiseproof.neurons.neuron import Neuron


class Recurrent(nn.Module):
    """Spiking neurons that see their own spikes of the step before: current I[t] = x[t] + W·s[t−1], W with a zero diagonal.

    `neuron`: any layer of neurons; `units` N. `weight` [N, N] is W, to unit from unit; its diagonal has no effect and no gradient.
    Takes and returns what `Neuron` does, for x [T, B, N]. Source: Büchel et al., arXiv:2106.05009, eq. (3).

    Raises `NoiseproofError` for a layer that is no `Neuron`, and for shapes that do not fit.

    Example:
        >>> from noiseproof.neurons import LIF
        >>> layer = Recurrent(LIF(leak=0.9), 5)
        >>> layer(torch.rand(7, 2, 5)).spikes.shape
        torch.Size([7, 2, 5])
    """

    mask: Tensor

    def __init__(self, neuron: Neuron, units: int) -> None:
        super().__init__()
        require(isinstance(neuron, Neuron), "neuron", type(neuron).__name__, "give a layer of noiseproof.neurons")
        self.neuron = neuron
        self.weight = nn.Parameter(torch.empty(units, units))
        nn.init.xavier_normal_(self.weight)
        self.register_buffer("mask", 1 - torch.eye(units), persistent=False)

    def forward(self, x: Tensor, **options: Any) -> Emitted:
        return self.neuron(x, recurrent=self.weight * self.mask, **options)
