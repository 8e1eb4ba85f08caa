from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.overrides import TorchFunctionMode

from noiseproof.errors import NoiseproofError, require_number
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.networks.adapt import Adapted
from noiseproof.neurons.neuron import hidden_units
from noiseproof.parameters import Params, call
from noiseproof.randomness import draw_mask

_functional = nn.functional
# the functions whose outputs are a network's hidden units
_ACTIVATIONS = {
    *(_functional.relu, _functional.relu_, _functional.leaky_relu, _functional.elu, _functional.gelu, _functional.silu),
    *(_functional.selu, _functional.softplus, _functional.hardtanh, _functional.relu6, _functional.mish, _functional.prelu),
    *(_functional.hardswish, _functional.hardsigmoid, _functional.celu, _functional.rrelu, _functional.glu, _functional.logsigmoid),
    *(_functional.softsign, _functional.threshold, _functional.tanh, _functional.sigmoid),
    *(torch.relu, torch.tanh, torch.sigmoid, Tensor.relu, Tensor.tanh, Tensor.sigmoid),
    hidden_units,
}


@dataclass(frozen=True)
class Dropout(Method):
    """Dropout on hidden units: L = CE(f(x; θ), y) with every hidden activation a replaced by a·m/(1 − p), m ~ Bernoulli(1 − p).

    Every sample has its own mask, the same at all steps of a spiking network (whose recurrence
    within a layer is not masked), and the scaling is inverted, so that nothing changes at
    inference. The mask is applied to
    the outputs of the activation functions while the loss is computed; the network itself is not changed.
    Source: Srivastava et al. 2014; p = 0.3 as the baseline of Büchel et al., arXiv:2106.05009, whose public code draws one
    mask for the whole batch and leaves out the scaling.

    Raises `NoiseproofError` when p is outside [0, 1), or the network calls no activation function or is an adapted spiking one.
    """

    # probability that a hidden unit is silent
    p: float = 0.3

    def __post_init__(self) -> None:
        require_number("p", self.p, 0, 0.99)

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        if isinstance(network, Adapted) and network.spiking:
            # what looks like an activation function in there may be a leak or a clamp of the membrane
            raise NoiseproofError(
                "method is 'dropout': the hidden units of an adapted spiking network are its neurons, inside which it cannot drop; put "
                "dropout layers into the network and use method standard, or choose another method"
            )
        with _HiddenDropout(self.p, context.generator) as dropout:
            logits = call(network, params, x)
        if not dropout.layers:
            raise NoiseproofError("method is 'dropout': the network calls no activation function, so it has no hidden units to drop")
        return cross_entropy(logits, y)


class _HiddenDropout(TorchFunctionMode):
    """While active, multiplies the output of every activation function by a mask."""

    def __init__(self, p: float, generator: torch.Generator) -> None:
        self.p, self.generator, self.layers = p, generator, 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function not in _ACTIVATIONS:
            return out
        self.layers += 1
        units = out.detach()[:1] if function is hidden_units else out.detach()  # spikes are [T, B, …]
        # laid out as the units are, so that the product runs through memory once
        drawn = draw_mask((units.numel(),), 1 - self.p, self.generator)
        keep = torch.empty_like(units)
        keep.as_strided(drawn.shape, (1,)).copy_(drawn).mul_(1 / (1 - self.p))
        return out * keep


method = Dropout
