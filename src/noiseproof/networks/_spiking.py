"""Networks of spiking neurons: batch-first outside, time-first inside, no hidden state."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from noiseproof.data import Task
from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.networks._base import Network, check_kinds
from noiseproof.networks._run import Run
from noiseproof.neurons import encodings
from noiseproof.neurons.equation import State
from noiseproof.neurons.neuron import Neuron
from noiseproof.neurons.rate_rules import RateRule, through_rates
from noiseproof.neurons.recurrent import Recurrent
from noiseproof.neurons.surrogates import Surrogate
from noiseproof.parameters import Params, functional_call
from noiseproof.randomness import current_generator

Coding = Literal["direct", "poisson", "poisson-expected", "latency"]
How = Literal["rate", "sum", "last", "max"]


@dataclass
class Pass:
    """One run through a network: what it is given, and what it leaves."""

    steps: int
    state: Mapping[str, State] | None = None
    surrogate: Surrogate | RateRule | None = None
    record: Sequence[str] = ()
    # told the name of every module that is reached, the module, and what comes into it, [T, B, …] or [1, B, …]
    seen: Callable[[str, nn.Module, Tensor], None] | None = None
    final: dict[str, State] = field(default_factory=dict)
    traces: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def neurons(self, name: str, layer: Neuron | Recurrent, current: Tensor) -> Tensor:
        """Return the spikes of a layer and note its state and traces."""
        if self.state is not None and name not in self.state:
            raise NoiseproofError(f"state has nothing for layer {name}: give what `run` of the same network returned")
        given = None if self.state is None else self.state[name]
        options = {"steps": self.steps, "state": given, "membrane": "membrane" in self.record}
        if isinstance(self.surrogate, RateRule):
            out = through_rates(layer, current, self.surrogate, **options)
        else:
            out = layer(current, surrogate=self.surrogate, **options)
        self.final[name] = out.state
        for kind, value in (("current", current), ("membrane", out.membrane), ("spikes", out.spikes)):
            if kind in self.record and value is not None:
                self.traces.setdefault(kind, {})[name] = value.expand(self.steps, *value.shape[1:])
        return out.spikes


def walk(module: nn.Module, z: Tensor, passing: Pass, name: str = "") -> Tensor:
    """Return what a module makes of z [T, B, …], or of [1, B, …] while nothing has changed in time yet: then it is computed once."""
    if passing.seen is not None:
        passing.seen(name, module, z)
    if isinstance(module, Neuron | Recurrent):
        return passing.neurons(name, module, z)
    if isinstance(module, Residual):
        return module.through(z, passing, name)
    if isinstance(module, nn.Sequential):
        for child, layer in module.named_children():
            z = walk(layer, z, passing, f"{name}.{child}" if name else child)
        return z
    if isinstance(module, Readout):
        return module.read(z, passing.steps)
    if isinstance(module, SequenceDropout):
        return module(z)
    return module(z.flatten(0, 1)).unflatten(0, z.shape[:2])


class Residual(nn.Module):
    """body(x) + shortcut(x), then `out`: the activation, or nothing where it comes first in the body."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Module, out: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.out = body, shortcut, out

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x) + self.shortcut(x))

    def through(self, z: Tensor, passing: Pass, name: str) -> Tensor:
        """Return the same for a sequence."""
        total = walk(self.body, z, passing, f"{name}.body") + walk(self.shortcut, z, passing, f"{name}.shortcut")
        return walk(self.out, total, passing, f"{name}.out")


class SequenceDropout(nn.Dropout):
    """Dropout with one mask for all steps of a sequence [T, B, …]. Source: Kundu et al., ICCV 2021."""

    def forward(self, input: Tensor) -> Tensor:
        return input * nn.functional.dropout(torch.ones_like(input[:1]), self.p, self.training)


class Readout(nn.Linear):
    """Spikes s [T, B, F] → logits [B, C], by neurons that do not spike.

    "rate": W·mean(s) + b;  "sum": accumulated, Σ_t (W·s[t] + b), without leak (Kundu et al., ICCV 2021);  "last" and "max": last or
    largest membrane potential of u[t] = λ·u[t−1] + W·s[t] + b. All but "max" are linear in s, so that one product serves all steps.
    """

    def __init__(self, units: int, classes: int, how: How, *, bias: bool = True, leak: float = 1.0) -> None:
        super().__init__(units, classes, bias=bias)
        require(how in ("rate", "sum", "last", "max"), "readout", how, "give rate, sum, last or max")
        require_number("readout_leak", leak, 0, 1, open_low=True)
        self.how, self.leak = how, leak

    def read(self, spikes: Tensor, steps: int) -> Tensor:
        """Return the logits of a sequence; one of length 1 stays the same for `steps` steps."""
        if self.how == "rate":
            return linear(spikes.mean(0), self.weight, self.bias)
        if self.how == "max":
            u = spikes.new_zeros(())
            potentials = []
            for current in linear(spikes, self.weight, self.bias).expand(steps, -1, -1).unbind(0):
                u = self.leak * u + current
                potentials.append(u)
            return torch.stack(potentials).amax(0)
        kept = spikes.new_tensor([1.0 if self.how == "sum" else self.leak ** (steps - 1 - t) for t in range(steps)])
        # the sum over t as one product; a sequence that stays the same needs no copies
        total = kept.sum() * spikes[0] if len(spikes) == 1 else torch.tensordot(kept, spikes, 1)
        logits = linear(total, self.weight)
        return logits if self.bias is None else logits + kept.sum() * self.bias

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, how={self.how!r}"


class SpikingNetwork(Network):
    """A stateless spiking network: x [B, *shape] in the data's own units → logits [B, classes].

    Still inputs are shown for `steps` steps: as they are ("direct", all layers before the first neurons computed once), as
    Poisson spikes of their rate ("poisson"; "poisson-expected": the rate itself, for attacks), or as one spike whose time says
    their value ("latency"). Sequences [B, T, …] are taken step by step.

    Raises `NoiseproofError` for inputs of another shape, and for Poisson coding without a generator.
    """

    def __init__(self, task: Task, layers: OrderedDict[str, nn.Module], *, steps: int, coding: Coding = "direct", sequence: bool) -> None:
        super().__init__(task, layers)
        self.steps, self.coding, self.sequence = steps, coding, sequence

    def forward(self, input: Tensor, options: dict[str, Any] | None = None) -> Any:
        return self._run(input).logits if options is None else self._run(input, **options)

    def run(
        self,
        x: Tensor,
        *,
        params: Params | None = None,
        steps: int | None = None,
        state: Mapping[str, Any] | None = None,
        generator: torch.Generator | None = None,
        surrogate: Surrogate | RateRule | None = None,
        expected: bool = False,
        record: Sequence[str] = (),
    ) -> Run:
        """Return logits [B, classes], the final state by layer, and the traces in `record`: current, membrane, spikes [T, B, …].

        `params`: other parameters than the network's own; `steps`: another T for still inputs; `state`: go on from what a run
        left (the neurons go on; the logits are those of this run's steps alone); `generator`: for Poisson coding;
        `surrogate`: another one, in all layers, or a rule that takes gradients through firing rates; `expected`: the expected input
        in place of Poisson spikes, as an attacker may take it. "membrane" is computed by the reference, more slowly.

        Raises `NoiseproofError` for an input of another shape, steps below 1 or for a sequence, a state of another network,
        an unknown trace, Poisson coding without a generator, or `expected` without Poisson coding.

        Example:
            >>> from noiseproof.data import Task
            >>> from noiseproof.networks import MLP
            >>> task = Task("digits", (1, 28, 28), 10, (0.1,), (0.3,), (0.0, 1.0))
            >>> network = MLP(hidden=(20,), neuron="lif", steps=4).build(task, torch.Generator().manual_seed(0))
            >>> run = network.run(torch.rand(2, 1, 28, 28), record=("spikes",))
            >>> run.logits.shape, {name: trace.shape for name, trace in run.traces["spikes"].items()}
            (torch.Size([2, 10]), {'lif1': torch.Size([4, 2, 20])})
        """
        check_kinds(record)
        options = {"steps": steps, "state": state, "generator": generator, "surrogate": surrogate, "record": tuple(record)}
        options |= {"expected": True} if expected else {}
        return self(x, options) if params is None else functional_call(self, params, (x, options))

    def _run(
        self,
        x: Tensor,
        steps: int | None = None,
        state: Mapping[str, Any] | None = None,
        generator: torch.Generator | None = None,
        surrogate: Surrogate | RateRule | None = None,
        record: Sequence[str] = (),
        expected: bool = False,
    ) -> Run:
        self._check(x)
        require(
            not expected or "poisson" in self.coding, "expected", expected, f"the coding is {self.coding}, without chance; leave it out"
        )
        z, steps = self._in_time(x, steps, generator, expected)
        passing = Pass(steps, state, surrogate, record)
        for name, layer in self.named_children():
            z = walk(layer, z, passing, name)
        return Run(z, passing.final, passing.traces)

    def _in_time(self, x: Tensor, steps: int | None, generator: torch.Generator | None, expected: bool = False) -> tuple[Tensor, int]:
        """Return the input [T, B, …] or, where it stays the same, [1, B, …]; and T."""
        if self.sequence:
            require(steps is None or steps == x.shape[1], "steps", steps, f"the inputs are sequences of {x.shape[1]} steps; leave it out")
            return self._coded(x.transpose(0, 1), 1, generator, expected).flatten(0, 1), x.shape[1]
        steps = self.steps if steps is None else steps
        require_number("steps", steps, 1, whole=True)
        return self._coded(x, steps, generator, expected), steps

    def _coded(self, x: Tensor, steps: int, generator: torch.Generator | None, expected: bool) -> Tensor:
        """Return the input as spikes [steps, …], low or high in the data's own units; as it is, [1, …], where it is not coded."""
        if expected or self.coding in ("direct", "poisson-expected"):  # the expected input of Poisson coding is the input itself
            return x[None]
        low, high = self.bounds
        rates = ((x - low) / (high - low)).clamp(0, 1)
        if self.coding == "latency":
            spikes = encodings.latency(rates, steps)
        else:
            spikes = encodings.poisson(rates, steps, generator or current_generator())
        return low + (high - low) * spikes
