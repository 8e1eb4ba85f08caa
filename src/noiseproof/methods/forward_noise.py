from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.errors import require, require_number
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.noise import MaxRelativeGaussian, Mismatch, Noise
from noiseproof.parameters import Params, call

RelativeTo = Literal["weight", "max"]


@dataclass(frozen=True)
class ForwardNoise(Method):
    """Training on noisy weights: L = CE(f(x; θ + stopgrad(σ·R)), y), R ~ N(0, 1) drawn anew for every batch.

    σ = η·|θ|, or η·max|θ| over the weights of an output channel. With `ramp_up`, η rises linearly over so many epochs.
    Source: Murray and Edwards 1994; as the baseline of Büchel et al., arXiv:2106.05009 (η = 0.3 of the weight); relative to the largest
    weight: Joshi et al. 2020 (η 0.02 … 0.11).

    Raises `NoiseproofError` when a setting is out of its range or `parameters` selects nothing.

    Example:
        >>> import torch
        >>> [ForwardNoise(eta=0.4, ramp_up=3).noise_at(Context(torch.Generator(), epoch=e)).describe()["zeta"] for e in (0, 3, 9)]
        [0.1, 0.4, 0.4]
    """

    # standard deviation of the training noise
    eta: float = 0.3
    # what eta is a share of: each weight, or the largest one of its output channel
    relative_to: RelativeTo = "weight"
    # epochs over which eta rises linearly from 0
    ramp_up: int = 0
    # weights | all | patterns of names
    parameters: str = "weights"

    def __post_init__(self) -> None:
        require_number("eta", self.eta, 0)
        require(self.relative_to in ("weight", "max"), "relative_to", self.relative_to, "give weight or max")
        require_number("ramp_up", self.ramp_up, 0, whole=True)

    @property
    def risen_after(self) -> int:
        return self.ramp_up if self.eta else 0

    def noise_at(self, context: Context) -> Noise:
        """Return the noise of this epoch."""
        eta = self.eta * context.risen(self.ramp_up)
        if self.relative_to == "max":
            return MaxRelativeGaussian(eta=eta, per="channel", parameters=self.parameters)
        return Mismatch(zeta=eta, parameters=self.parameters)

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        return cross_entropy(call(network, self.noise_at(context)(params, context.generator), x), y)


method = ForwardNoise
