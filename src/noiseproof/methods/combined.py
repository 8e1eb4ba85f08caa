from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from noiseproof._names import name_of
from noiseproof.errors import NoiseproofError, require
from noiseproof.methods._base import Batch, Context, Method, Round
from noiseproof.methods.adversarial_training import AdversarialTraining
from noiseproof.methods.weight_adversary import WeightAdversary
from noiseproof.parameters import Params


@dataclass(frozen=True)
class Combined(Method):
    """One network for its chip and for its inputs: L = L_inputs(θ) + β_rob·KL(p(θ) ‖ p(θ*)).

    L_inputs is the loss of any method on inputs, the second part that of `WeightAdversary`, at the inputs as they are or at those that
    the first method trains at. With η > 0 of `weights` the first loss is taken at θ_noisy, and its inputs are made there. Where a batch
    makes several updates (hire, free), every one of them has both parts.
    Source: ours, from Büchel et al., arXiv:2106.05009, L_gen, whose L_nat becomes L_inputs.

    Raises `NoiseproofError` when `weights` is no weight-adversary, or `inputs` has no single loss (abcd, entropy-sgd).

    Example:
        >>> Combined(weights=WeightAdversary(steps=3), inputs=AdversarialTraining(attack="fgsm")).gradient_evaluations
        7
    """

    # what is added for the weights: weight-adversary, with its own flags
    weights: Method = field(default_factory=WeightAdversary)
    # the method whose loss it is added to, with its own flags
    inputs: Method = field(default_factory=AdversarialTraining)
    # the inputs at which the KL is taken: as they are, or those at which `inputs` trains
    at: Literal["clean", "perturbed"] = "clean"

    def __post_init__(self) -> None:
        _ = self.adversary
        stepping = type(self.inputs).step is not Method.step
        if stepping or isinstance(self.inputs, Combined | WeightAdversary):
            reason = "it takes its steps in a way of its own" if stepping else "it is about weights itself"
            name = name_of("methods", type(self.inputs))
            raise NoiseproofError(f"inputs is {name!r}: {reason}; give a method on inputs, such as adversarial-training, stable or hire")
        require(self.at in ("clean", "perturbed"), "at", self.at, "give clean or perturbed")

    @property
    def adversary(self) -> WeightAdversary:
        """`weights`, which is one."""
        require(isinstance(self.weights, WeightAdversary), "weights", name_of("methods", type(self.weights)), "give weight-adversary")
        return self.weights  # pyright: ignore[reportReturnType]

    @property
    def gradient_evaluations(self) -> float:
        # with every update: N a start, one at θ*, one at θ
        return self.inputs.gradient_evaluations + self.inputs.updates * (self.adversary.restarts * self.adversary.steps + 2)

    @property
    def updates(self) -> int:
        return self.inputs.updates

    @property
    def risen_after(self) -> int:
        return max(self.adversary.risen_after, self.inputs.risen_after)

    def start(self, network: nn.Module) -> dict[str, Tensor]:
        return self.inputs.start(network)

    def after_step(self, params: Params) -> None:
        self.inputs.after_step(params)

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        return next(self.rounds(network, lambda: params, batch, context)).loss

    def rounds(self, network: nn.Module, params: Callable[[], Params], batch: Batch, context: Context) -> Iterator[Round]:
        def noisy() -> Params:
            return self.adversary.forward_noise.noise_at(context)(params(), context.generator)

        for made in self.inputs.rounds(network, noisy if self.adversary.eta else params, batch, context):
            x = batch[0] if self.at == "clean" else made.inputs
            yield Round(made.loss + self.adversary.robustness(network, params(), x, context), made.inputs)


method = Combined
