"""Surrogate gradients: what stands for the derivative of a spike, which is 1 above the threshold and 0 below.

All are functions of the scaled distance z = (v − θ)/θ, so that one surrogate fits every threshold; a spike is s = H(z) and
in backward ds/dv = σ'(z)/θ, ds/dθ = −σ'(z)·v/θ². For θ = 1 that is the derivative with respect to v itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from noiseproof.errors import require, require_number, unknown


@dataclass(frozen=True)
class Surrogate(ABC):
    """σ'(z), the derivative that backward uses, and σ(z), its integral. z: any shape; both return that shape.

    One of your own is a dataclass with these two; the reference computes it.
    """

    code: ClassVar[int] = -1  # how the kernels know it

    @abstractmethod
    def derivative(self, z: Tensor) -> Tensor:
        """Return σ'(z) ≥ 0."""

    @abstractmethod
    def primitive(self, z: Tensor) -> Tensor:
        """Return σ(z), bounded wherever z is moderate; its autograd derivative is `derivative`."""

    @property
    def settings(self) -> tuple[float, float]:
        """The two numbers that a kernel needs beside the code."""
        values = [float(v) for v in vars(self).values()]
        return values[0], values[1] if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Triangle(Surrogate):
    """σ'(z) = γ·max(0, 1 − |z|/ω).

    Source: Kundu et al., ICCV 2021 (γ 0.3, ω 1); Ding et al., ICML 2024 (γ = 1/ω, ω 1); Bellec et al. 2018 (γ the
    dampening, 0.3).

    Raises `NoiseproofError` unless γ and ω are positive.
    """

    # height
    gamma: float = 1.0
    # half-width, in units of the threshold
    omega: float = 1.0
    code: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require_number("gamma", self.gamma, 0, open_low=True)
        require_number("omega", self.omega, 0, open_low=True)

    def derivative(self, z: Tensor) -> Tensor:
        return self.gamma * (1 - z.abs() / self.omega).clamp_min(0)

    def primitive(self, z: Tensor) -> Tensor:
        u = (z / self.omega).clamp(-1, 1)
        return self.gamma * self.omega * (u - 0.5 * u * u.abs())


@dataclass(frozen=True)
class Atan(Surrogate):
    """σ'(z) = (α/2)/(1 + (π/2·α·z)²). Source: Fang et al., arXiv:2007.05785.

    Raises `NoiseproofError` unless α is positive.
    """

    # sharpness
    alpha: float = 2.0
    code: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, 0, open_low=True)

    def derivative(self, z: Tensor) -> Tensor:
        return 0.5 * self.alpha / (1 + (0.5 * math.pi * self.alpha * z).square())

    def primitive(self, z: Tensor) -> Tensor:
        return torch.atan(0.5 * math.pi * self.alpha * z) / math.pi


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """σ'(z) = α·p·(1 − p), p = 1/(1 + exp(−α·z)).

    Raises `NoiseproofError` unless α is positive.
    """

    # sharpness
    alpha: float = 4.0
    code: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, 0, open_low=True)

    def derivative(self, z: Tensor) -> Tensor:
        p = torch.sigmoid(self.alpha * z)
        return self.alpha * p * (1 - p)

    def primitive(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.alpha * z)


@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """σ'(z) = 1/(1 + α|z|)². Source: Zenke and Ganguli, arXiv:1705.11146.

    Raises `NoiseproofError` unless α is positive.
    """

    # sharpness
    alpha: float = 25.0
    code: ClassVar[int] = 3

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, 0, open_low=True)

    def derivative(self, z: Tensor) -> Tensor:
        return 1 / (1 + self.alpha * z.abs()).square()

    def primitive(self, z: Tensor) -> Tensor:
        return z / (1 + self.alpha * z.abs())


@dataclass(frozen=True)
class Rectangle(Surrogate):
    """σ'(z) = 1/ω where |z| < ω/2, else 0. Source: Wu et al., arXiv:1706.02609.

    Raises `NoiseproofError` unless ω is positive.
    """

    # width, in units of the threshold
    omega: float = 1.0
    code: ClassVar[int] = 4

    def __post_init__(self) -> None:
        require_number("omega", self.omega, 0, open_low=True)

    def derivative(self, z: Tensor) -> Tensor:
        return (z.abs() < 0.5 * self.omega).to(z.dtype) / self.omega

    def primitive(self, z: Tensor) -> Tensor:
        inside = z.abs() < 0.5 * self.omega
        return torch.where(inside, z / self.omega, 0.5 * z.detach().sign())


SURROGATES: dict[str, type[Surrogate]] = {
    "triangle": Triangle,
    "atan": Atan,
    "sigmoid": Sigmoid,
    "fast-sigmoid": FastSigmoid,
    "rectangle": Rectangle,
}


def surrogate(name: str, *settings: float) -> Surrogate:
    """Return the surrogate of a name, with its settings in the order of its fields.

    Raises `NoiseproofError` for an unknown name, with the nearest that exists, or more settings than it has.

    Example:
        >>> surrogate("triangle", 0.3)
        Triangle(gamma=0.3, omega=1.0)
    """
    if name not in SURROGATES:
        raise unknown("surrogate", name, SURROGATES)
    kind = SURROGATES[name]
    takes = [f.name for f in fields(kind)]
    require(len(settings) <= len(takes), "surrogate_settings", settings, f"surrogate {name} has {' and '.join(takes)}")
    return kind(*settings)
