from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.noise.mismatch import Mismatch
from noiseproof.parameters import Params, call


@dataclass(frozen=True)
class ForwardNoise(Method):
    """Training on noisy weights: L = CE(f(x; θ + stopgrad(|θ|·η·R)), y), R ~ N(0, 1) drawn anew for every batch.

    Source: Murray and Edwards 1994; Joshi et al. 2020; as the baseline of Büchel et al., arXiv:2106.05009 (η = 0.3).

    Raises `NoiseproofError` when η is negative or not finite.
    """

    # standard deviation of the relative training noise
    eta: float = 0.3
    # weights | all | patterns of names
    parameters: str = "weights"

    def __post_init__(self) -> None:
        require_number("eta", self.eta, 0)

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        noisy = Mismatch(zeta=self.eta, parameters=self.parameters)(params, context.generator)
        return cross_entropy(call(network, noisy, x), y)


method = ForwardNoise
