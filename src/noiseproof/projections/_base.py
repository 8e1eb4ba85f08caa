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
    def project(self, theta: Tensor) -> Tensor:
        """Return what becomes of one parameter."""

    @torch.no_grad()
    def __call__(self, params: Params) -> None:
        """Change the selected parameters in place.

        Raises `NoiseproofError` when `parameters` selects nothing.
        """
        for theta in select(params, self.parameters).values():
            theta.copy_(self.project(theta))
