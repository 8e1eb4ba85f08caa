from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from noiseproof._names import name_of
from noiseproof.parameters import Params, select
from noiseproof.randomness import children, draw_normal


@dataclass(frozen=True)
class Noise(ABC):
    """Gaussian noise on parameters: θ' = θ + σ(θ)·ξ, ξ ~ N(0, 1) per element, frozen for the life of one chip.

    A kind of noise is a dataclass with its hyper-parameters and one equation, `sigma`. The draw of a parameter depends on
    the generator and on the parameter's name alone: the same chip whatever else is selected and in whatever order.
    """

    # weights | all | patterns of names such as "conv*.weight"; by name only, so that Mismatch(0.3) is ζ = 0.3
    parameters: str = field(default="weights", kw_only=True)

    @abstractmethod
    def sigma(self, theta: Tensor) -> Tensor:
        """Return the standard deviation of the noise, in the unit of `theta`, of a shape that broadcasts to it."""

    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        """Return the parameters of one chip; those not selected are passed on as they are.

        The noise term is a constant to autograd: ∂θ'/∂θ = 1 (the forward noise of paper A). It is drawn in float32 on the
        generator's device, so that a CPU generator makes the same chip for every device and precision.

        Raises `NoiseproofError` when `parameters` selects nothing.
        """
        chosen = select(params, self.parameters)
        streams = children(generator, list(chosen))
        chip = dict(params)
        for name, theta in chosen.items():
            fixed = theta.detach()
            chip[name] = theta + self.sigma(fixed) * draw_normal(fixed, streams[name])
        return chip

    def describe(self) -> dict[str, Any]:
        """Return name and settings, as they stand in every record."""
        return {"name": name_of("noise", type(self)), **asdict(self)}
