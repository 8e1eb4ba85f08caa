from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from noiseproof.errors import NoiseproofError, require
from noiseproof.noise._base import Noise
from noiseproof.parameters import Params
from noiseproof.randomness import children


@dataclass(frozen=True)
class Compose(Noise):
    """Several noises, one after the other, in the order given: θ' = n_k(… n_2(n_1(θ))).

    Every step has its own random numbers, which do not depend on the settings of the others. The order is part of every result.

    Raises `NoiseproofError` for no steps.
    """

    # the noises, in the order in which they act
    steps: tuple[Noise, ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.steps), "steps", self.steps, "give at least one noise")

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        raise NoiseproofError("a composition acts on all parameters together: call it")

    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        streams = children(generator, [f"step {i}" for i in range(len(self.steps))])
        for step, stream in zip(self.steps, streams.values(), strict=True):
            params = step(params, stream)
        return params

    def converters(self, params: Params) -> contextlib.AbstractContextManager[Any]:
        stack = contextlib.ExitStack()
        for step in self.steps:
            stack.enter_context(step.converters(params))
        return stack

    def describe(self) -> dict[str, Any]:
        """Return the names in order, and all settings; one that several steps have is numbered by its step."""
        parts = [step.describe() for step in self.steps]
        names = " > ".join(part.pop("name") for part in parts)
        often = [key for part in parts for key in part]
        flat = {key if often.count(key) == 1 else f"{key} of step {i}": v for i, part in enumerate(parts, 1) for key, v in part.items()}
        same = {part["parameters"] for part in parts}
        if len(same) == 1:
            flat = {key: v for key, v in flat.items() if not key.startswith("parameters")} | {"parameters": same.pop()}
        return {"name": names, **flat}


def compose(steps: Sequence[Noise]) -> Noise:
    """Return one noise from several; a single one comes back as it is."""
    return steps[0] if len(steps) == 1 else Compose(tuple(steps))
