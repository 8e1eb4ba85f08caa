"""Time: how x goes into an outside network, and how what comes out becomes logits."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.networks._outside_libraries import Layout, library_of

Readout = Literal["sum", "mean", "last", "max"]


@dataclass(frozen=True)
class Time:
    """How one network takes time; the words are those of `adapt`.

    Raises `NoiseproofError` when the settings contradict each other.
    """

    layout: Layout
    steps: int | None = None
    sequence: bool = False
    readout: Readout = "sum"
    output: int = 0

    def __post_init__(self) -> None:
        require(self.layout in get_args(Layout), "layout", self.layout, f"give auto, {', '.join(get_args(Layout))}")
        require(self.readout in get_args(Readout), "readout", self.readout, f"give {', '.join(get_args(Readout))}")
        require_number("output", self.output, 0, whole=True)
        if self.steps is not None:
            require_number("steps", self.steps, 1, whole=True)
        if self.layout == "own":
            require(self.steps is None, "steps", self.steps, "with layout 'own' the network counts its steps itself; leave steps out")
        elif self.steps is None and not self.sequence:
            raise NoiseproofError(
                f"steps is None for a network that takes time ({self.layout}): give steps=T to repeat still inputs [batch, …] T times, "
                "sequence=True for inputs [batch, time, …], or layout='own' if its forward loops over time itself"
            )

    def logits(self, module: nn.Module, x: Tensor, steps: int | None = None) -> Tensor:
        """Return logits [B, C] of x [B, …], or [B, T, …] with `sequence`; `steps` overrides T for still inputs."""
        if self.layout == "own":
            require(steps is None, "steps", steps, "with layout 'own' the network counts its steps itself; leave steps out")
            return self._read(self._tensor(module(x)), len(x), None)
        T = self._length(x, steps)
        if self.layout == "step":
            return self._read(torch.stack(list(self._each_step(module, x, T))), len(x), T)
        with _folded(module, len(x), T):
            out = self._tensor(module(self._inputs(x, T)))
        if self.layout == "flattened" and out.shape[:1] == (len(x) * T,):
            out = out.unflatten(0, (len(x), T))
        return self._read(out, len(x), T)

    def _length(self, x: Tensor, steps: int | None) -> int:
        if not self.sequence:
            steps = self.steps if steps is None else steps
            require_number("steps", steps, 1, whole=True)
            assert steps is not None
            return steps
        expected = self.steps if steps is None else steps
        if x.ndim < 2 or x.shape[1] == 0 or (expected is not None and x.shape[1] != expected):
            wanted = f"[batch, {expected or 'time'}, …]"
            looks = "; this one looks time-first" if x.ndim > 1 and len(x) == expected else ""
            raise NoiseproofError(f"x is of shape {tuple(x.shape)}: with sequence=True this network takes {wanted}{looks}")
        return x.shape[1]

    def _inputs(self, x: Tensor, T: int) -> Tensor:
        """Return x as a network takes it that sees all steps at once; direct coding repeats a still input."""
        if self.layout == "time-first":
            return (x.transpose(0, 1) if self.sequence else x.expand(T, *x.shape)).contiguous()
        sequence = x if self.sequence else x.unsqueeze(1).expand(-1, T, *x.shape[1:]).contiguous()
        return sequence.flatten(0, 1) if self.layout == "flattened" else sequence

    def _each_step(self, module: nn.Module, x: Tensor, T: int) -> Iterator[Tensor]:
        """Yield the output [B, C] of every step; a module that passes its state gets the last one back."""
        passes, state = passes_state(module), None
        # contiguous steps, as a user's time-first data has them: strided rows are summed in another order
        for now in x.transpose(0, 1).contiguous() if self.sequence else [x] * T:
            out = module(now, state=state) if passes else module(now)
            if passes:
                if not isinstance(out, tuple) or len(out) != 2:
                    raise NoiseproofError(f"the network takes a state and returns {type(out).__name__}: it must return (output, state)")
                out, state = out
            value = self._tensor(out)
            if value.ndim != 2 or len(value) != len(x):
                raise self._wrong(value, f"[{len(x)}, classes] at every step")
            yield value

    def _tensor(self, out: Any) -> Tensor:
        """Return the tensor that is read: networks may return (spikes, membrane) or (output, state)."""
        value = out
        if isinstance(out, tuple | list):
            require(self.output < len(out), "output", self.output, f"the network returns {len(out)} values, counted from 0")
            value = out[self.output]
        elif self.output:
            raise NoiseproofError(f"output is {self.output}: the network returns one {type(out).__name__}; leave output out")
        if not isinstance(value, Tensor):
            raise NoiseproofError(f"the network returns {type(value).__name__}: it must return a tensor of logits or spikes")
        return value

    def _read(self, out: Tensor, batch: int, T: int | None) -> Tensor:
        """Return logits [B, C] from the outputs of all steps; a network that has read out itself gives them already."""
        if out.ndim == 2 and len(out) == batch:
            return out
        batch_first = self.layout in ("batch-first", "flattened")
        shape = f"[{batch * (T or 1)}, classes]" if self.layout == "flattened" else f"[{batch}, {T}, classes]"
        shape = shape if batch_first else f"[{'time' if T is None else T}, {batch}, classes]"
        if out.ndim != 3:
            raise self._wrong(out, shape)
        steps = out.transpose(0, 1) if batch_first else out
        if steps.shape[1] != batch or (T is not None and len(steps) != T):
            turned = len(steps) == batch and T in (None, steps.shape[1])
            raise self._wrong(out, shape + (f" (this looks {'time' if batch_first else 'batch'}-first)" if turned else ""))
        match self.readout:
            case "sum":
                return steps.sum(0)
            case "mean":
                return steps.mean(0)
            case "max":
                return steps.amax(0)
            case _:
                return steps[-1]

    def _wrong(self, out: Tensor, expected: str) -> NoiseproofError:
        return NoiseproofError(
            f"the network returns shape {tuple(out.shape)}: with layout {self.layout!r} it must return {expected}; "
            "see steps, sequence and layout of noiseproof.adapt"
        )


def passes_state(module: nn.Module) -> bool:
    """Return whether a module is given its state and returns it, as Norse's are."""
    return "state" in inspect.signature(module.forward).parameters


@contextlib.contextmanager
def _folded(module: nn.Module, batch: int, T: int) -> Iterator[None]:
    """Tell sinabs' layers for [B·T, …] both numbers while they are called; they are built for one of them."""
    layers = [m for m in module.modules() if library_of(m) == "sinabs"]
    kept = [(vars(m), n, vars(m)[n]) for m in layers for n in ("batch_size", "num_timesteps") if n in vars(m)]
    try:
        for attributes, name, _ in kept:
            attributes[name] = batch if name == "batch_size" else T
        yield
    finally:
        for attributes, name, value in kept:
            attributes[name] = value
