from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from noiseproof.parameters import Params, select


@dataclass(frozen=True)
class Projection(ABC):
    """A change of the parameters, in place, after every step of an optimiser. A dataclass with one equation, `project`."""

    # weights | all | patterns of names
    parameters: str = field(default="weights", kw_only=True)

    @abstractmethod
    def project(self, theta: Tensor, stream: torch.Generator | None) -> Tensor:
        """Return what becomes of one parameter; `stream` makes all randomness, of those that have some."""

    @torch.no_grad()
    def __call__(self, params: Params, stream: torch.Generator | None = None) -> None:
        """Change the selected parameters in place.

        Raises `NoiseproofError` when `parameters` selects nothing, or randomness is needed and `stream` is None.
        """
        for theta in select(params, self.parameters).values():
            theta.copy_(self.project(theta, stream))
