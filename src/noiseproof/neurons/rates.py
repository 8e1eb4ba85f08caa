from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from noiseproof.errors import NoiseproofError
from noiseproof.neurons.neuron import Neuron, hidden_units
from noiseproof.observing import observed


class RatePenalty(TorchFunctionMode):
    """While active, notes the spikes of a network's forward passes; `take` gives w·Σ_i (r_i − r0)² of the first one since the last `take`.

    r_i is the mean of unit i over steps and batch, in spikes a step; the sum goes over all units of all layers. The first forward
    pass of a training step is that of the task loss, whatever else a method computes after it; passes without gradient, or
    made aside, do not count.
    Source: Büchel et al., arXiv:2106.05009, appendix (w 1e-3, r0 0.01); after Bellec et al. 2018.

    Raises `NoiseproofError` for a network without spiking neurons of ours.
    """

    def __init__(self, network: nn.Module, weight: float, target: float) -> None:
        self.weight, self.target = weight, target
        self.layers = sum(isinstance(layer, Neuron) for layer in network.modules())
        self.rates: list[Tensor] = []
        if not self.layers:
            raise NoiseproofError(f"rate_penalty is {weight!r}: the network has no spiking neurons of noiseproof; leave it out")

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function is hidden_units and len(self.rates) < self.layers and torch.is_grad_enabled() and observed():
            self.rates.append(out.mean((0, 1)))
        return out

    def take(self) -> Tensor:
        """Return the penalty, and begin anew."""
        if not self.rates:
            raise NoiseproofError(
                f"rate_penalty is {self.weight!r}: no spikes were seen in this step; the method calls the network without gradient"
            )
        total = torch.stack([(rate - self.target).square().sum() for rate in self.rates]).sum()
        self.rates = []
        return self.weight * total
