from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks import PGD
from noiseproof.attacks.objectives import kl_divergence
from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context
from noiseproof.methods._perturbing import InputMethod
from noiseproof.parameters import Params, call


@dataclass(frozen=True)
class TRADES(InputMethod):
    """TRADES: L = CE(f(x), y) + β·KL(p(x) ‖ p(x′)), x′ what projected ascent of that KL finds within ε of x, without labels.

    The gradient of the loss flows through both arguments of the KL, of spiking networks too. The search sees the network in the mode of
    training, as that of `AdversarialTraining` does, and starts at a uniformly random point of the ball (the original: in inference, and
    N(0, 0.001²) around x); both passes of the loss are those of training.
    Source: Zhang et al., "Theoretically principled trade-off between robustness and accuracy", arXiv:1901.08573, eq. (5), Algorithm 1
    (β 6; ε 0.031, 10 steps of 0.003 in the comparison of Büchel et al., arXiv:2106.05009).

    Raises `NoiseproofError` when a setting is out of its range.

    Example:
        >>> TRADES(steps=10).gradient_evaluations
        12
    """

    # weight β of the KL
    beta: float = 6.0
    # largest change of an input, in the unit of the data
    eps: float = 0.031
    # steps of the search
    steps: int = 10
    # size of each, in the unit of the data
    step_size: float = 0.003

    def __post_init__(self) -> None:
        require_number("beta", self.beta, 0)
        require_number("step_size", self.step_size, 0, open_low=True)
        _ = self.attack  # it checks the other settings

    @property
    def attack(self) -> PGD:
        """The search of one batch."""
        return PGD(self.eps, steps=self.steps, step=self.step_size, loss="kl")

    @property
    def gradient_evaluations(self) -> float:
        return self.steps + 2

    def perturb(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        return self.attack.craft(network, params, *batch, context.generator)

    def loss_at(self, network: nn.Module, params: Params, batch: Batch, perturbed: Tensor) -> Tensor:
        x, y = batch
        clean, moved = call(network, params, x), call(network, params, perturbed)
        return cross_entropy(clean, y) + self.beta * kl_divergence(clean.log_softmax(-1), moved.log_softmax(-1))


method = TRADES
