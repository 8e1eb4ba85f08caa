from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from noiseproof._declared import declared
from noiseproof._names import name_of
from noiseproof.errors import NoiseproofError
from noiseproof.parameters import Params, select
from noiseproof.randomness import children, draw_normal

if TYPE_CHECKING:
    from noiseproof.noise._devices import Chip

# what a noise takes and gives: parameters; parameters that become devices; devices; devices that are read as parameters
Stage = Literal["parameters", "program", "devices", "read"]


@dataclass(frozen=True)
class Noise(ABC):
    """What hardware does to parameters, frozen for the life of one chip.

    A kind of noise is a dataclass with its hyper-parameters and one equation, `draw`. The draw of a parameter depends on
    the generator and on the parameter's name alone: the same chip whatever else is selected and in whatever order.
    """

    stage: ClassVar[Stage] = "parameters"

    # weights | all | patterns of names such as "conv*.weight"; by name only, so that Mismatch(0.3) is ζ = 0.3
    parameters: str = field(default="weights", kw_only=True)

    @abstractmethod
    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        """Return what becomes of one parameter on one chip; `theta` needs no gradient, `stream` makes all randomness."""

    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        """Return the parameters of one chip; those not selected are passed on as they are.

        The change is a constant to autograd: ∂θ'/∂θ = 1 (the forward noise of paper A; for rounding, straight through). It is
        drawn in float32 on the generator's device, so that a CPU generator makes the same chip for every device and precision.

        Raises `NoiseproofError` when `parameters` selects nothing.
        """
        chosen = self.selected(params)
        streams = children(generator, list(chosen))
        return params | {name: straight_through(theta, self.draw(theta.detach(), streams[name])) for name, theta in chosen.items()}

    def selected(self, params: Params) -> Params:
        """Return those of `params` that this noise changes.

        Raises `NoiseproofError` when there are none.
        """
        return select(params, self.parameters)

    def on_devices(self, chip: Chip, generator: torch.Generator) -> Chip:
        """Return what becomes of a chip of memory devices, for a noise that stands between program and read in a composition.

        A noise that can act there overrides this, with `chip.change` and `Devices.stuck` or `dataclasses.replace`.

        Raises `NoiseproofError` for one that cannot.
        """
        raise NoiseproofError(f"noise is {name_of('noise', type(self))!r}: it acts on weights, not on devices; compose it before program")

    @property
    def deterministic(self) -> bool:
        """Whether all chips are surely the same: at size zero, and for what draws nothing, such as rounding."""
        return False

    @property
    def converts(self) -> bool:
        """Whether the network must run with `converters` open."""
        return False

    def converters(self, params: Params) -> contextlib.AbstractContextManager[Any]:
        """Return what must be open while a network runs at `params`, one chip of this noise: converters of the hardware, if any."""
        return contextlib.nullcontext()

    def describe(self) -> dict[str, Any]:
        """Return name and settings, as they stand in every record."""
        return {"name": name_of("noise", type(self)), **{part.name: item for part, item in declared(self)}}


class Additive(Noise):
    """Gaussian noise that is added: θ' = θ + σ(θ)·ξ, ξ ~ N(0, 1) per element; its one equation is `sigma`."""

    @abstractmethod
    def sigma(self, theta: Tensor) -> Tensor:
        """Return the standard deviation of the noise, in the unit of `theta`, of a shape that broadcasts to it."""

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        return draw_normal(theta, stream).mul_(self.sigma(theta)).add_(theta)


def straight_through(theta: Tensor, changed: Tensor) -> Tensor:
    """Return `changed`, exactly, with the gradient of `theta`: ∂θ'/∂θ = 1."""
    return changed + (theta - theta.detach()) if theta.requires_grad else changed
