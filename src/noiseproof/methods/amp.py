from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks.ascent import GradientBall
from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.methods._searching import climbed, displaced
from noiseproof.parameters import Params, call, select, trained


@dataclass(frozen=True)
class AMP(Method):
    """Adversarial model perturbation: L = CE(f(x; θ + Δ), y), Δ a constant that N steps of ascent find in a ball, ‖Δ‖₂ ≤ ε.

    Δ ← Π_ε(Δ + ζ·∇CE(θ + Δ)) from Δ = 0; the norm goes over **all** selected parameters together, not tensor by tensor.
    Batch norm's statistics follow the pass at θ + Δ.
    Source: Zheng et al., "Regularizing neural networks via adversarial model perturbation", arXiv:2010.04925, Algorithm 1
    (published: ζ 1, N 1; ε 0.5 for large networks with batch norm, too much for small ones without). The default ε is that of Büchel
    et al., arXiv:2106.05009, for images; they have 0.02 for ECG and 0.01 for speech.

    Raises `NoiseproofError` when a setting is out of its range or `parameters` selects nothing.

    Example:
        >>> AMP(epsilon=0.005, steps=3).gradient_evaluations
        4
    """

    # radius of the ball, in the unit of the parameters
    epsilon: float = 0.005
    # ascent steps N
    steps: int = 1
    # rate ζ of the ascent
    inner_rate: float = 1.0
    # weights | all | patterns of names, of the parameters that are trained
    parameters: str = "all"

    def __post_init__(self) -> None:
        require_number("epsilon", self.epsilon, 0)
        require_number("steps", self.steps, 1, whole=True)
        require_number("inner_rate", self.inner_rate, 0, open_low=True)

    @property
    def gradient_evaluations(self) -> float:
        return self.steps + 1

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        one = {name: p.new_ones(()) for name, p in select(trained(params), self.parameters).items()}
        up = climbed(network, params, batch, one, GradientBall(self.epsilon), self.steps, size=self.inner_rate)
        return cross_entropy(call(network, displaced(params, up), x), y)


method = AMP
