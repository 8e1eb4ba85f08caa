from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks import PGD
from noiseproof.attacks.ascent import Box, Layerwise, radii
from noiseproof.errors import require, require_number
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.methods._searching import climbed, displaced
from noiseproof.parameters import Params, call, select


@dataclass(frozen=True)
class AWP(Method):
    """Adversarial weight perturbation: L = CE(f(x; θ + v), y), v a constant that ascent of the CE finds.

    `form="layer"`, the original: ‖v_l‖₂ ≤ γ‖θ_l‖₂ in every layer; one step gives v_l = γ‖θ_l‖·∇_l/‖∇_l‖.
    `form="relative"`: |v| ≤ γ|θ| for every weight, by projected sign steps; γ is the whole size, 0.1 means ± 10 %.
    With eps > 0 the inputs are attacked first, at θ: x + U(−ε, ε), then projected sign steps inside the network's range of inputs.
    The gradient at θ + v is applied to θ. Batch norm's statistics follow the pass at θ + v.
    Source: Wu, Xia, Wang, "Adversarial weight perturbation helps robust generalization", arXiv:2004.05884, Algorithm 1
    (published: γ 0.005 … 0.01, one step; inputs ε 8/255, step 2/255, 10 steps); the relative form with γ 0.1 from Büchel et al.,
    arXiv:2106.05009, whose public code reaches ± 20 % for the LSNN.

    Raises `NoiseproofError` when a setting is out of its range or `parameters` selects nothing.

    Example:
        >>> AWP(gamma=0.1, form="relative", steps=10).gradient_evaluations
        11
    """

    # size of the perturbation, relative to the layer's norm or to each weight
    gamma: float = 0.005
    # layer: an l2 ball a layer, relative to its norm; relative: a box, relative to every weight
    form: Literal["layer", "relative"] = "layer"
    # ascent steps on the weights, each 1/steps of the set wide
    steps: int = 1
    # epochs over which gamma rises linearly from 0; a network that is hit at full size from the start may learn nothing
    ramp_up: int = 0
    # largest change of an input, in the unit of the data; 0: inputs are not attacked
    eps: float = 0.0
    # step of the attack on inputs, in the unit of the data
    eps_step: float = 2 / 255
    # steps of the attack on inputs
    eps_steps: int = 10
    # weights | all | patterns of names
    parameters: str = "weights"

    def __post_init__(self) -> None:
        require_number("gamma", self.gamma, 0)
        require(self.form in ("layer", "relative"), "form", self.form, "give layer or relative")
        require_number("steps", self.steps, 1, whole=True)
        require_number("ramp_up", self.ramp_up, 0, whole=True)
        require_number("eps", self.eps, 0)
        require_number("eps_step", self.eps_step, 0, open_low=True)
        require_number("eps_steps", self.eps_steps, 1, whole=True)

    @property
    def gradient_evaluations(self) -> float:
        return (self.eps_steps if self.eps else 0) + self.steps + 1

    @property
    def risen_after(self) -> int:
        return self.ramp_up if self.gamma else 0

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        if self.eps:
            attack = PGD(self.eps, steps=self.eps_steps, step=self.eps_step)
            x = attack.craft(network, params, x, y, context.generator)
        chosen = {name: p.detach() for name, p in select(params, self.parameters).items()}
        gamma = self.gamma * context.risen(self.ramp_up)
        if self.form == "layer":
            radius, shape = {name: gamma * p.norm() for name, p in chosen.items()}, Layerwise()
        else:
            radius, shape = radii(chosen, gamma), Box()
        worst = displaced(params, climbed(network, params, (x, y), radius, shape, self.steps))
        return cross_entropy(call(network, worst, x), y)


method = AWP
