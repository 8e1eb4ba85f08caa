from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks.ascent import Ellipsoid
from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.methods._searching import climbed, displaced
from noiseproof.parameters import Params, call, select, trained


@dataclass(frozen=True)
class SAM(Method):
    """Sharpness-aware minimisation: L = CE(f(x; θ + ε), y) with ε = ρ·∇CE(θ)/‖∇CE(θ)‖₂, a constant to autograd.

    The norm goes over all selected parameters together. Batch norm's statistics follow the pass at θ + ε.
    Source: Foret et al., "Sharpness-aware minimization", arXiv:2010.01412, eqs. (2) and (3), with p = 2 (ρ 0.05).

    Raises `NoiseproofError` when ρ is negative or not finite, or `parameters` selects nothing.

    Example:
        >>> SAM(rho=0.1).gradient_evaluations
        2
    """

    # length of the step up, in the unit of the parameters
    rho: float = 0.05
    # weights | all | patterns of names, of the parameters that are trained
    parameters: str = "all"

    def __post_init__(self) -> None:
        require_number("rho", self.rho, 0)

    @property
    def gradient_evaluations(self) -> float:
        return 2

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        one = {name: p.new_ones(()) for name, p in select(trained(params), self.parameters).items()}
        up = climbed(network, params, batch, one, Ellipsoid(self.rho), steps=1)  # eq. (2)
        return cross_entropy(call(network, displaced(params, up), x), y)  # its gradient is eq. (3)


method = SAM
