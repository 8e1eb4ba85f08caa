from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks import Attack
from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context
from noiseproof.methods._perturbing import InputMethod, mixed, one_attack, passes_of
from noiseproof.parameters import Params, call


@dataclass(frozen=True)
class AdversarialTraining(InputMethod):
    """Adversarial training: L = χ·CE(f(x), y) + (1 − χ)·CE(f(x′), y), x′ what an attack on the inputs makes of x.

    The attack sees the network at its present parameters and in the mode of training: batch norm takes the statistics of the batch
    of x′, and keeps its running ones. Then they follow the passes of the loss, with χ > 0 that of x and that of x′.
    With a single step that starts at x itself ("fgsm") the training may end in a network that withstands this one step and no
    other (catastrophic overfitting); a random start in the ball is the remedy, "pgd(steps=1, step=10/255)" or "r-fgsm".
    Source: Madry et al., arXiv:1706.06083, eq. (2.1) (χ 0; ε 8/255, 7 steps of 2/255); Goodfellow et al., arXiv:1412.6572 (FGSM, χ 0.5);
    Wong et al., arXiv:2001.03994 (one step from a random start).

    Raises `NoiseproofError` when `attack` spells no attack, or several, or χ is outside [0, 1].

    Example:
        >>> AdversarialTraining(attack="pgd(eps=0.1, steps=3)").gradient_evaluations
        4
    """

    # the attack, or noise on inputs: pgd, fgsm, r-fgsm … with its settings
    attack: str = "pgd(eps=8/255, steps=7, step=2/255)"
    # χ: share of the loss at the inputs as they are
    mix: float = 0.0

    def __post_init__(self) -> None:
        _ = self.made
        require_number("mix", self.mix, 0, 1)

    @property
    def made(self) -> Attack:
        """The attack itself."""
        return one_attack(self.attack, "attack")

    @property
    def gradient_evaluations(self) -> float:
        return passes_of(self.attack) + 1 + (self.mix > 0)

    def perturb(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        return self.made.craft(network, params, *batch, context.generator)

    def loss_at(self, network: nn.Module, params: Params, batch: Batch, perturbed: Tensor) -> Tensor:
        x, y = batch
        if not self.mix:
            return cross_entropy(call(network, params, perturbed), y)
        return mixed(self.mix, call(network, params, x), call(network, params, perturbed), y)


method = AdversarialTraining
