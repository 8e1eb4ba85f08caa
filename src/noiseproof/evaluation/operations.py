"""What operations cost, and how many a network performs: the parts of an energy estimate."""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof import config
from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.networks import SpikingNetwork
from noiseproof.networks._base import Normalise
from noiseproof.networks._outside_traces import neurons
from noiseproof.networks._residual import ImageMean
from noiseproof.networks._spiking import Pass, walk
from noiseproof.neurons import Neuron, Recurrent
from noiseproof.parameters import inference_mode

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# with the number of axes over which they take the mean
AVERAGING: dict[type[nn.Module], int] = {
    nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3,
    nn.AdaptiveAvgPool1d: 1, nn.AdaptiveAvgPool2d: 2, nn.AdaptiveAvgPool3d: 3, ImageMean: 2,
}  # fmt: skip


@dataclass(frozen=True)
class OperationCosts:
    """Energy of one operation in pJ. The built-in ones are of a 45 nm process at 0.9 V.

    Source: Kundu et al., ICCV 2021, Table 7, after Horowitz, ISSCC 2014.

    Raises `NoiseproofError` for a cost that is no number of at least 0.
    """

    name: str
    # accumulate: what a spike costs at a weight
    ac: float
    # multiply and accumulate: what a number costs at a weight
    mac: float

    def __post_init__(self) -> None:
        require_number(f"ac of operation_costs {self.name}", self.ac, 0)
        require_number(f"mac of operation_costs {self.name}", self.mac, 0)

    def describe(self) -> dict[str, Any]:
        """Return name and costs, as they stand in every record."""
        return {"costs": self.name, "ac": self.ac, "mac": self.mac}


BUILT_IN = {costs.name: costs for costs in (OperationCosts("fp32", 0.9, 4.6), OperationCosts("int32", 0.1, 3.2))}


def operation_costs(name: str) -> list[OperationCosts]:
    """Return the costs of a name (fp32, int32), or all those in a file.

    TOML: a table for each process, `[mine]` with `ac = 0.05` and `mac = 1.2` in pJ. CSV: the columns name, ac, mac.

    Raises `NoiseproofError` for an unknown name, and for a file that cannot be read or has something else in it.

    Example:
        >>> operation_costs("fp32")
        [OperationCosts(name='fp32', ac=0.9, mac=4.6)]
    """
    if name in BUILT_IN:
        return [BUILT_IN[name]]
    path = Path(name)
    known = f"give {', '.join(BUILT_IN)}, or a file (.toml, .csv) with name, ac and mac in pJ"
    require(path.suffix in (".toml", ".csv"), "operation_costs", name, known)
    try:
        rows = _toml(path) if path.suffix == ".toml" else _csv(path)
        found = [OperationCosts(str(row["name"]), float(row["ac"]), float(row["mac"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise error if isinstance(error, NoiseproofError) else NoiseproofError(f"operation_costs is {name!r}: {known}") from None
    require(bool(found), "operation_costs", name, f"the file holds none; {known}")
    return found


def _toml(path: Path) -> list[Mapping[str, Any]]:
    return [{"name": name, **table} for name, table in config.load_toml(path).items()]


def _csv(path: Path) -> list[Mapping[str, Any]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise NoiseproofError(f"operation_costs is {str(path)!r}: cannot read it: {error.strerror}") from None


@dataclass(frozen=True)
class Operations:
    """What one layer with weights does for one sample, the mean over samples."""

    # multiplications and additions where every input comes once: FL of Table 6
    flops: float
    # ζ: how often an input comes; spikes per input over all steps, or the steps themselves where inputs are numbers
    activity: float
    # whether the inputs are spikes, so that only additions are left
    spikes: bool


@torch.no_grad()
def operations(network: nn.Module, x: Tensor, numbers: Collection[str] = ()) -> dict[str, Operations]:
    """Return by name what every convolution, dense and recurrent layer does, in the order in which they are reached.

    Spikes that are averaged before a layer come to it one by one: pooling by k × k is folded into the weights. So is batch norm,
    which costs nothing. Inputs that are numbers come at every step, also where they stay the same (direct coding). Whether inputs
    are spikes is seen from their values; `numbers` names layers of which it is known that they are not, where all may be zero.

    Raises `NoiseproofError` where spikes are averaged over windows of unequal size: behind them a value stands for no one count.
    """
    counter = _Counter(len(x), numbers)
    with inference_mode(network):
        if isinstance(network, SpikingNetwork):
            _run(network, x, counter)
        else:
            with _hooked(network, counter.see):
                network(x)
    return {
        name: Operations(tally.flops, tally.numbers if name in counter.numbers else tally.spikes, name not in counter.numbers)
        for name, tally in counter.tallies.items()
    }


def flops(module: nn.Module, inputs: Tensor) -> float:
    """Return the multiplications and additions of a layer for one input: k²·H_o·W_o·C_o·C_i of a convolution, N_o·N_i of a dense layer.

    `inputs`: one input or several, [B, …]. Source: Kundu et al., ICCV 2021, Table 6.

    Example:
        >>> flops(nn.Conv2d(3, 8, 3, padding=1, stride=2), torch.rand(1, 3, 32, 32)) == 3 * 3 * 16 * 16 * 8 * 3
        True
    """
    weight = next(p for name, p in module.named_parameters() if name == "weight")
    if not isinstance(module, nn.modules.conv._ConvNd):
        return float(weight.numel())
    # on shapes alone, and past the hooks of the module
    out = module._conv_forward(inputs[:1].to("meta"), weight.to("meta"), None)  # pyright: ignore[reportCallIssue]
    return float(weight.numel() * math.prod(out.shape[2:]))


@dataclass
class _Tally:
    """What came into one layer so far, for one input: as spikes, and as numbers."""

    flops: float
    spikes: float = 0.0
    numbers: float = 0.0


class _Counter:
    """Follows a network from module to module and notes what comes into those with weights.

    `worth`: how many spikes a value of 1 stands for; 0 where values are numbers. `steps`: how often numbers come that were seen once.
    """

    def __init__(self, samples: int, numbers: Collection[str]) -> None:
        self.samples, self.steps, self.worth = samples, 1, 0.0
        self.coded: float | None = None  # spikes per input, where the network codes its input itself
        self.tallies: dict[str, _Tally] = {}
        # what was a number once stays one, whatever ran before in a loop over time
        self.numbers = set(numbers)
        self._windows: dict[tuple[str, torch.Size], float] = {}

    def see(self, name: str, module: nn.Module, inputs: Tensor | None) -> None:
        """Take notice of a module that is reached; `inputs`: [B, …], or [T, B, …] with all steps at once; None for neurons."""
        if inputs is None:
            self.worth = 1.0
        elif isinstance(module, tuple(AVERAGING)):
            self._average(name, module, inputs)
        elif isinstance(module, WEIGHTED):
            self._note(name, module, inputs)

    def _average(self, name: str, module: nn.Module, inputs: Tensor) -> None:
        if not self._spikes(name, inputs):
            self.worth = 0.0
            return
        place = name, inputs.shape
        if place not in self._windows:
            self._windows[place] = _window(module, inputs)
        if not self._windows[place]:
            raise NoiseproofError(
                f"energy is asked for: layer {name} ({type(module).__name__}) averages spikes over windows of unequal size, "
                "so that they cannot be counted behind it; leave energy out"
            )
        self.worth *= self._windows[place]

    def _note(self, name: str, module: nn.Module, inputs: Tensor) -> None:
        axes = 1 if isinstance(module, nn.Linear) else next(p.ndim for p in module.parameters()) - 1  # of what comes in at one step
        inputs = inputs.reshape(-1, *inputs.shape[-axes:])
        size = math.prod(inputs.shape[1:])
        tally = self.tallies.setdefault(name, _Tally(flops(module, inputs)))
        if self.coded is not None and not self.worth:
            tally.spikes += self.coded
            return
        if self._spikes(name, inputs):
            tally.spikes += self.worth * float(inputs.double().sum()) / (self.samples * size)
        tally.numbers += self.steps * inputs.numel() / (self.samples * size)

    def _spikes(self, name: str, inputs: Tensor) -> bool:
        """Return whether spikes come into a module."""
        counts = inputs.double() * self.worth
        if not self.worth or not torch.allclose(counts, counts.round(), atol=1e-3):
            self.numbers.add(name)
        return name not in self.numbers


@torch.enable_grad()
def _window(module: nn.Module, inputs: Tensor) -> float:
    """Return how many values every average is taken over, 0 where that differs from place to place.

    A mean of n values has the gradient 1/n. Windows are products of intervals, so that those along the axes tell of all.
    """
    kind = next(kind for kind in AVERAGING if isinstance(module, kind))
    image = torch.zeros(1, 1, *inputs.shape[-AVERAGING[kind] :], requires_grad=True)
    # of its own class: one of a library may take several steps at once
    means = kind.forward(module, image)
    along = [mean for axis in range(means.ndim) for mean in means.movedim(axis, 0).flatten(1)[:, 0]]
    sizes = {round(1 / float(torch.autograd.grad(mean, image, retain_graph=True)[0].amax())) for mean in along}
    return float(sizes.pop()) if len(sizes) == 1 else 0.0


def _run(network: SpikingNetwork, x: Tensor, counter: _Counter) -> None:
    """Count in a network of ours."""
    z, steps = network._in_time(x, None, None)
    low, high = network.bounds
    worths: dict[str, float] = {}  # at the entry of every module: a shortcut begins where its block does

    def seen(name: str, module: nn.Module, inputs: Tensor) -> None:
        counter.worth = worths[name.removesuffix(".shortcut")] if name.endswith(".shortcut") else counter.worth
        worths[name] = counter.worth
        if isinstance(module, Normalise) and network.coding in ("poisson", "latency"):
            counter.coded = float(((inputs - low) / (high - low)).double().sum(0).mean())
        counter.steps = steps if len(inputs) == 1 else 1
        if isinstance(module, Recurrent):
            units = module.weight.shape[0]
            counter.tallies[name] = _Tally(float(units * (units - 1)))
        counter.see(name, module, None if isinstance(module, Neuron | Recurrent) else inputs.flatten(0, 1))

    recurrent = any(isinstance(layer, Recurrent) for layer in network.modules())
    passing = Pass(steps, record=("spikes",) if recurrent else (), seen=seen)
    for name, layer in network.named_children():
        z = walk(layer, z, passing, name)
    for name, spikes in passing.traces.get("spikes", {}).items():
        if name in counter.tallies:  # recurrent: the spikes of the last step are not seen again
            counter.tallies[name].spikes = float(spikes[:-1].double().sum(0).mean())


@contextlib.contextmanager
def _hooked(network: nn.Module, see: Callable[[str, nn.Module, Tensor | None], None]) -> Iterator[None]:
    """Let `see` know what is reached in a plain network or an adapted one; the hooks are removed again."""
    spiking, counted = set(neurons(network).values()), (*WEIGHTED, *AVERAGING)
    with contextlib.ExitStack() as hooks:
        for name, module in network.named_modules():
            if isinstance(module, counted) or module in spiking:

                def reached(module: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                    see(name.removeprefix("module."), module, None if module in spiking else inputs[0])

                hooks.callback(module.register_forward_pre_hook(reached).remove)
        yield
