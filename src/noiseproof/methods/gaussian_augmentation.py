from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context
from noiseproof.methods._perturbing import InputMethod, within_bounds
from noiseproof.parameters import Params, call
from noiseproof.randomness import draw_normal


@dataclass(frozen=True)
class GaussianAugmentation(InputMethod):
    """Training at noisy inputs: L = CE(f(clip(x + σ·ξ)), y), ξ ~ N(0, 1) for every entry, drawn anew for every batch.

    clip: into the range of the network's inputs. The baseline of every attack that is trained against.
    Source: Bishop 1995; Rusak et al., arXiv:2001.06057.

    Raises `NoiseproofError` when σ is negative or not finite.

    Example:
        >>> GaussianAugmentation(sigma=0.1).gradient_evaluations
        1
    """

    # standard deviation of the noise, in the unit of the data
    sigma: float = 8 / 255

    def __post_init__(self) -> None:
        require_number("sigma", self.sigma, 0)

    def perturb(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, _ = batch
        return within_bounds(network, x + self.sigma * draw_normal(x, context.generator))

    def loss_at(self, network: nn.Module, params: Params, batch: Batch, perturbed: Tensor) -> Tensor:
        return cross_entropy(call(network, params, perturbed), batch[1])


method = GaussianAugmentation
