from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks.ascent import Ellipsoid, radii
from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.methods._searching import climbed, displaced
from noiseproof.parameters import Params, call, select, trained


@dataclass(frozen=True)
class ASAM(Method):
    """Adaptive sharpness-aware minimisation: L = CE(f(x; θ + ε), y) with ε = ρ·T²∇CE(θ)/‖T∇CE(θ)‖₂, T = |θ| + η element by element.

    Its set scales with each parameter, as device mismatch does; ε is a constant to autograd, and the norm goes over all
    selected parameters together. Batch norm's statistics follow the pass at θ + ε.
    Source: Kwon et al., "ASAM: adaptive sharpness-aware minimization", arXiv:2102.11600, Algorithm 1, element-wise (ρ 0.5, η 0.01).

    Raises `NoiseproofError` when ρ or η is negative or not finite, or `parameters` selects nothing.

    Example:
        >>> ASAM(rho=1.0).gradient_evaluations
        2
    """

    # length of the step up, in relative coordinates
    rho: float = 0.5
    # constant part of T, in the unit of the parameters
    eta: float = 0.01
    # weights | all | patterns of names, of the parameters that are trained
    parameters: str = "all"

    def __post_init__(self) -> None:
        require_number("rho", self.rho, 0)
        require_number("eta", self.eta, 0)

    @property
    def gradient_evaluations(self) -> float:
        return 2

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        chosen = {name: p.detach() for name, p in select(trained(params), self.parameters).items()}
        # in coordinates relative to T this is the ball of radius ρ
        up = climbed(network, params, batch, radii(chosen, 1.0, self.eta), Ellipsoid(self.rho), steps=1)
        return cross_entropy(call(network, displaced(params, up), x), y)


method = ASAM
