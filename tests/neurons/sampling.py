"""A sampler of neuron layers: every backend is held against the reference on the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from noiseproof.neurons import Atan, Constants, FastSigmoid, Form, Rectangle, Sigmoid, State, Surrogate, Triangle, integrate, using

SURROGATES: tuple[Surrogate, ...] = (Triangle(0.3), Triangle(0.5, 2.0), Atan(), Sigmoid(), FastSigmoid(), Rectangle(2.0))


@dataclass(frozen=True)
class Layer:
    """Inputs of one layer of neurons, leaf tensors; all numbers are multiples of 1/64, so that sums are exact in any order."""

    form: Form
    steps: int
    x: Tensor
    constants: Constants
    state: State | None
    recurrent: Tensor | None

    def leaves(self) -> dict[str, Tensor]:
        """Return the tensors that have a gradient, by name."""
        found: dict[str, Any] = {"x": self.x, **self.constants._asdict(), "recurrent": self.recurrent}
        if self.state is not None:
            found |= {"v": self.state.v, "s": self.state.s, "b": self.state.b}
        return {name: value for name, value in found.items() if value is not None}

    def solve(self, backend: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return outputs and gradients by name, for a loss that weighs all outputs."""
        with using(backend):
            out = integrate(self.x, self.constants, self.form, steps=self.steps, state=self.state, recurrent=self.recurrent)
        outputs = {"spikes": out.spikes, "v": out.state.v} | ({"b": out.state.b} if out.state.b is not None else {})
        draw = torch.Generator().manual_seed(1)
        loss = sum((value * torch.randn(value.shape, generator=draw).to(value)).sum() for value in outputs.values())
        assert isinstance(loss, Tensor)
        leaves = self.leaves()
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        gradients = {name: torch.zeros_like(leaf) if g is None else g for (name, leaf), g in zip(leaves.items(), found, strict=True)}
        if out.state.r is not None:
            outputs["r"] = out.state.r
        return outputs, gradients


def sampled(
    form: Form,
    *,
    seed: int = 0,
    steps: int = 6,
    batch: int = 5,
    units: tuple[int, ...] = (37,),
    dtype: torch.dtype = torch.float64,
    state: bool = False,
    fixed: bool = False,
    in_time: bool = False,
    per: str = "mixed",
    recurrent: bool = False,
    layout: torch.memory_format | None = None,
) -> Layer:
    """Return a layer that spikes in about a third of the cases."""
    draw = torch.Generator().manual_seed(seed)

    def grid(values: Tensor) -> Tensor:
        return (values * 64).round().div(64).to(dtype)

    def positive(*shape: int) -> Tensor:
        return grid(torch.rand(shape, generator=draw) * 0.5 + 0.4)

    ones = [1] * len(units)
    one, channel, neuron = (1, 1, *ones), (1, 1, units[0], *ones[1:]), (1, 1, *units)
    shapes = {
        "layer": dict.fromkeys(("leak", "gain", "theta", "beta", "rho"), one),
        "mixed": {"leak": one, "gain": (1, batch, *ones), "theta": neuron, "beta": one, "rho": channel},
        "sample": dict.fromkeys(("leak", "gain", "theta", "beta", "rho"), (1, batch, *units)),
    }[per]
    x = grid(torch.randn((1 if fixed else steps, batch, *units), generator=draw)) + 0.5
    if layout is not None:
        x = x.flatten(0, 1).to(memory_format=layout).unflatten(0, x.shape[:2])
    leak, gain = positive(*shapes["leak"]), positive(*shapes["gain"])
    if in_time:
        leak, gain = positive(steps, *leak.shape[1:]), positive(steps, *gain.shape[1:])
    constants = [leak, positive(*shapes["theta"]), gain]
    constants += [positive(*shapes["beta"]), positive(*shapes["rho"])] if form.adaptive else [None, None]
    begin = None
    if state:
        rest = (batch, *units)
        v, s = grid(torch.randn(rest, generator=draw)), (torch.rand(rest, generator=draw) < 0.3).to(dtype)
        b = positive(*rest).requires_grad_() if form.adaptive else None
        r = torch.randint(0, 2, rest, generator=draw).to(dtype) if form.refractory else None
        begin = State(v.requires_grad_(), s.requires_grad_(), b, r)
    W = grid(torch.randn(units[0], units[0], generator=draw) * 0.2).requires_grad_() if recurrent else None
    for value in (x, *constants):
        if value is not None:
            value.requires_grad_()
    return Layer(form, steps, x, Constants(*constants), begin, W)
