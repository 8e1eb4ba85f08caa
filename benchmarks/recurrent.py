"""A training step of the recurrent network with adaptive thresholds, against other libraries and against its matrix products alone.

    python benchmarks/recurrent.py [--rounds 7] [--threads N]

16 inputs → 256 recurrent units → 10 classes, T = 100, batch 100, float32; all in one process, in turn. "matrix products": those of
forward and backward, with nothing between them. Goals: at least 3.5 times faster than the fastest library with an adaptive threshold; at
most 1.2 × the matrix products at 5 % firing. The last table is the curve against the firing rate.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable

import torch
from _timing import in_turn, ratio
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.data import Task
from noiseproof.networks import LSNN
from noiseproof.neurons import tune_allocator, using

T, B, F, N, C = 100, 100, 16, 256, 10
TASK = Task("sequences", (T, F), C, (0.0,) * F, (1.0,) * F, (-5.0, 5.0))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.simplefilter("ignore")
    tune_allocator()
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(B, T, F, generator=draw), torch.randint(0, C, (B,), generator=draw)
    network = at_rate(0.05, x)
    contenders: dict[str, Callable[[], object]] = {
        "matrix products": matrix_products,
        "noiseproof": step(network, x, y),
        "noiseproof, handwritten": with_backend("handwritten", step(network, x, y)),
        "eager (the reference)": with_backend("reference", step(network, x, y)),
    }
    for name, make in (
        ("Norse LSNN", norse_lsnn),
        ("SpikingJelly, recurrent, no adaptation", spikingjelly),
        ("snnTorch, no adaptation", snntorch),
    ):
        try:
            peer = make()
        except ImportError as error:
            print(f"{name} is left out: {error}")
        else:
            contenders[name] = step(peer, x, y)
    seconds = in_turn(contenders, chosen.rounds)
    print(f"{F} → {N} recurrent → {C}, T = {T}, batch {B}, {chosen.threads} thread(s), firing {rate(network, x):.1%}")
    print(f"{'training step':40} {'ms':>8} {'× products':>11} {'ours is faster':>22}")
    for name in contenders:
        relative, low, high = ratio(seconds, name, "noiseproof")
        faster = "" if name in ("noiseproof", "matrix products") else f"{relative:.1f} × ({low:.1f} – {high:.1f})"
        over = ratio(seconds, name, "matrix products")[0]
        print(f"{name:40} {1e3 * statistics.median(seconds[name]):8.1f} {over:11.2f} {faster:>22}")

    print(f"\n{'firing':>8} {'step, ms':>9} {'× products':>11}")
    for wanted in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4):
        network = at_rate(wanted, x)
        both = in_turn({"step": step(network, x, y), "products": matrix_products}, max(3, chosen.rounds // 2))
        print(f"{rate(network, x):8.1%} {1e3 * statistics.median(both['step']):9.1f} {ratio(both, 'step', 'products')[0]:11.2f}")


def step(network: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    """Return forward, loss and gradients of all weights."""
    weights = [p for p in network.parameters() if p.requires_grad]
    return lambda: torch.autograd.grad(cross_entropy(network(x), y), weights, allow_unused=True)


def with_backend(name: str, work: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with using(name):
            return work()

    return run


def at_rate(wanted: float, x: Tensor) -> nn.Module:
    """Return the network with its input scaled so that the units fire at about the rate that is wanted; few dead steps at high rates."""
    network = LSNN(refractory=0 if wanted > 0.3 else 1, beta=0.2 if wanted > 0.1 else 2.0).build(TASK, torch.Generator().manual_seed(0))
    low, high = -6.0, 8.0
    original = network.input.weight.detach().clone()
    for _ in range(14):
        middle = (low + high) / 2
        with torch.no_grad():
            network.input.weight.copy_(original * 2**middle)
        low, high = (middle, high) if rate(network, x) < wanted else (low, middle)
    return network


@torch.no_grad()
def rate(network: nn.Module, x: Tensor) -> float:
    return float(network.run(x, record=("spikes",)).traces["spikes"]["recurrent"].mean())


def matrix_products() -> None:
    """All products of a step: input, recurrence and read-out, forward, for what comes before, and for the weights."""
    s, W, x, V = torch.ones(B, N), torch.ones(N, N), torch.ones(T * B, F), torch.ones(F, N)
    x @ V
    for _ in range(T):
        s @ W
    for _ in range(T):
        s @ W
    torch.ones(N, T * B) @ torch.ones(T * B, N)
    x.T @ torch.ones(T * B, N)


class Looped(nn.Module):
    """A cell that is called once a step, between an input layer and a read-out of its mean rate."""

    def __init__(self, begin: Callable[[], Callable[[Tensor], Tensor]], cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.input, self.out = cell, nn.Linear(F, N, bias=False), nn.Linear(N, C)
        self.begin = begin

    def forward(self, x: Tensor) -> Tensor:
        cell, total = self.begin(), 0
        for current in self.input(x).unbind(1):
            total = total + cell(current)
        return self.out(total / T)


def norse_lsnn() -> nn.Module:
    from norse.torch import LSNNRecurrentCell

    cell = LSNNRecurrentCell(N, N)

    def begin() -> Callable[[Tensor], Tensor]:
        state = None

        def call(current: Tensor) -> Tensor:
            nonlocal state
            spikes, state = cell(current, state)
            return spikes

        return call

    return Looped(begin, cell)


def spikingjelly() -> nn.Module:
    from spikingjelly.activation_based import functional, layer, neuron

    cell = layer.LinearRecurrentContainer(neuron.LIFNode(20.0, v_reset=None), N, N, bias=False)

    def begin() -> nn.Module:
        functional.reset_net(cell)
        return cell

    return Looped(begin, cell)


def snntorch() -> nn.Module:
    import snntorch

    cell = snntorch.RLeaky(beta=0.95, linear_features=N)

    def begin() -> Callable[[Tensor], Tensor]:
        spikes, memory = cell.init_rleaky()

        def call(current: Tensor) -> Tensor:
            nonlocal spikes, memory
            spikes, memory = cell(current, spikes, memory)
            return spikes

        return call

    return Looped(begin, cell)


if __name__ == "__main__":
    main()
