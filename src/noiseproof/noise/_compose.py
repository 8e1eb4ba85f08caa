from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from noiseproof._names import name_of
from noiseproof.errors import NoiseproofError, require
from noiseproof.noise._base import Noise
from noiseproof.noise._devices import Chip, PartOfChip
from noiseproof.noise.drift import Drift
from noiseproof.noise.program import Program
from noiseproof.noise.read import Read
from noiseproof.parameters import Params
from noiseproof.randomness import children


@dataclass(frozen=True)
class Compose(Noise):
    """Several noises, one after the other, in the order given: θ' = n_k(… n_2(n_1(θ))).

    Every step has its own random numbers, by its name, which depend neither on the settings of the others nor on their presence.
    From `program` on the steps act on the devices of a chip, until `read` gives parameters again. The order is part of every result.

    Raises `NoiseproofError` for no steps, and for an order that makes no sense: devices that are not there or are never read.

    Example:
        >>> from noiseproof.noise import Drift, Mismatch, Program, Read
        >>> Compose((Program(), Drift(time=3600), Read(), Mismatch(zeta=0.1))).describe()["name"]
        'program > drift > read > mismatch'
    """

    # the noises, in the order in which they act
    steps: tuple[Noise, ...] = ()
    # of a part of another composition: how many steps of the same name come before each one in the whole; (): as they stand here
    before: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.steps), "steps", self.steps, "give at least one noise")
        self._check_order()
        self._check_times()
        last = not any(step.converts for step in self.steps[:-1])
        self._require(last, "converters stand around the weights as they are read; let the step that has them be the last")
        which = {step.parameters for step in self.steps if step.stage in ("parameters", "program")}
        object.__setattr__(self, "parameters", which.pop() if len(which) == 1 else "all")  # each step selects for itself

    def _check_order(self) -> None:
        devices = False
        for step in self.steps:
            name = _name(step)
            if step.stage == "program":
                self._require(not devices, f"{name} comes when the weights are devices already; read them first, or program once")
                devices = True
            elif step.stage in ("devices", "read"):
                self._require(devices, f"{name} needs devices; let program come before it")
                devices = step.stage == "devices"
            else:
                takes_devices = type(step).on_devices is not Noise.on_devices
                self._require(not devices or takes_devices, f"{name} acts on weights, not on devices; let it come before program")
        self._require(not devices, "the devices are programmed and never read; let read be the last step")

    def _check_times(self) -> None:
        time = -1.0
        for step in self.steps:
            if step.stage == "program":
                time = -1.0
            if isinstance(step, Drift) and step.stage == "devices":
                order = f"drift to {step.time:g} s comes after drift to {time:g} s; times count from programming and grow"
                self._require(step.time > time, order)
                time = step.time

    def _require(self, condition: bool, remedy: str) -> None:
        require(condition, "noise", self._names(), remedy)

    def _names(self) -> str:
        return " > ".join(map(_name, self.steps))

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        raise NoiseproofError("a composition acts on all parameters together: call it")

    def streams(self, generator: torch.Generator) -> list[torch.Generator]:
        """Return one generator a step, which depends on the step's name and on how many of that name came before."""
        known = [f"{_name(step)} {before}" for step, before in zip(self.steps, self.namesakes(), strict=True)]
        return list(children(generator, known).values())

    def namesakes(self) -> tuple[int, ...]:
        """Return, for every step, how many of its name come before it."""
        names = [_name(step) for step in self.steps]
        return self.before or tuple(names[:i].count(name) for i, name in enumerate(names))

    def part(self, kept: Mapping[int, Noise]) -> Compose:
        """Return the composition of some of the steps, by their place, each with the random numbers that it has here."""
        return Compose(tuple(kept.values()), before=tuple(self.namesakes()[i] for i in kept))

    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        value: Params | Chip = params
        for step, stream in zip(self.steps, self.streams(generator), strict=True):
            value = _act(step, value, stream)
        assert isinstance(value, dict)  # the order was checked
        return value

    @property
    def deterministic(self) -> bool:
        return all(step.deterministic for step in self.steps)

    @property
    def converts(self) -> bool:
        return any(step.converts for step in self.steps)

    @contextlib.contextmanager
    def converters(self, params: Params) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for step in self.steps:
                stack.enter_context(step.converters(params))
            yield

    def describe(self) -> dict[str, Any]:
        """Return the names in order, and all settings; one that several steps have is numbered by its step."""
        parts = [step.describe() for step in self.steps]
        names = " > ".join(part.pop("name") for part in parts)
        # a selection that all have stands there once; it may be missing in the description of a step, and never means another then
        chosen = {step.parameters for step in self.steps if not isinstance(step, PartOfChip)}
        same = {"parameters": chosen.pop()} if len(chosen) == 1 else {}
        parts = [{key: v for key, v in part.items() if key not in same} for part in parts]
        often = [key for part in parts for key in part]
        flat = {
            f"{key} of step {i}" if key == "parameters" or often.count(key) > 1 else key: v
            for i, part in enumerate(parts, 1)
            for key, v in part.items()
        }
        return {"name": names, **flat, **same}


def _name(step: Noise) -> str:
    return name_of("noise", type(step))


def _act(step: Noise, value: Params | Chip, stream: torch.Generator) -> Params | Chip:
    if isinstance(value, Chip):
        return step.read(value) if isinstance(step, Read) else step.on_devices(value, stream)
    return step.program(value, stream) if isinstance(step, Program) and step.stage == "program" else step(value, stream)


def compose(steps: Sequence[Noise]) -> Noise:
    """Return one noise from several; a single one comes back as it is.

    Raises `NoiseproofError` as `Compose` does, also for a single step that is none without others.
    """
    return steps[0] if len(steps) == 1 and steps[0].stage == "parameters" else Compose(tuple(steps))
