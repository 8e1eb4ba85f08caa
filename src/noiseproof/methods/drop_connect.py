from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.parameters import Params, call, select
from noiseproof.randomness import children, draw_mask


@dataclass(frozen=True)
class DropConnect(Method):
    """DropConnect: L = CE(f(x; θ·m/(1 − p)), y), m ~ Bernoulli(1 − p) for every weight, drawn anew for every batch.

    A weight that is dropped has no gradient. All selected layers are masked, and one mask serves the batch, as a faulty chip would
    have it; the paper masks one dense layer, with a mask a sample, and samples at inference, where we take θ itself.
    Without `scale` the factor 1/(1 − p) is left out, as on hardware whose devices fail.
    Source: Wan et al., "Regularization of neural networks using DropConnect", ICML 2013, p 0.5; practice for analog hardware is
    0 … 0.03.

    Raises `NoiseproofError` when p is outside [0, 0.99] or `parameters` selects nothing.

    Example:
        >>> DropConnect(p=0.03, scale=False).gradient_evaluations
        1
    """

    # probability that a weight is zero
    p: float = 0.5
    # divide by 1 - p what is kept, so that the mean stays
    scale: bool = True
    # weights | all | patterns of names
    parameters: str = "weights"

    def __post_init__(self) -> None:
        require_number("p", self.p, 0, 0.99)

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        return cross_entropy(call(network, params | self.dropped(params, context.generator), x), y)

    def dropped(self, params: Params, generator: torch.Generator) -> Params:
        """Return the selected parameters with some of their entries zero."""
        chosen = select(params, self.parameters)
        streams = children(generator, list(chosen))
        factor = 1 / (1 - self.p) if self.scale else 1.0

        def mask(theta: Tensor, stream: torch.Generator) -> Tensor:
            return torch.empty_like(theta).copy_(draw_mask(theta.shape, 1 - self.p, stream)).mul_(factor)

        return {name: theta * mask(theta.detach(), streams[name]) for name, theta in chosen.items()}


method = DropConnect
