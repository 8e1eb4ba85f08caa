"""A training step of the spiking VGG5, against the same network with other libraries' neurons and with no neurons at all.

    python benchmarks/networks.py [--rounds 5] [--threads N]

CIFAR-10 sizes, T = 8, batch 16, float32, no dropout; all in one process, in turn. "identity": nothing in place of the neurons. Every
peer runs on images repeated T times, and again with its first layer computed once, as ours does it. Goals: at most 1.10 × identity;
at least 1.15 times faster than the fastest peer with, and 1.25 times without, the first layer computed once.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable

import torch
from _peers import lif_peers
from _timing import in_turn, ratio
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from noiseproof.data import Task
from noiseproof.networks import VGG5
from noiseproof.neurons import tune_allocator

T, B, LEAK = 8, 16, 0.5
TASK = Task("images", (3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3, (0.0, 1.0))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.simplefilter("ignore")
    tune_allocator()
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(B, 3, 32, 32, generator=draw), torch.randint(0, 10, (B,), generator=draw)
    network = VGG5(steps=T, leak=LEAK, reset="hard", dropout=0.0, surrogate="atan", surrogate_settings=()).build(TASK, draw)
    weights = {name: p for name, p in network.named_parameters() if p.ndim >= 2}

    def ours() -> object:
        return torch.autograd.grad(cross_entropy(network(x), y), list(weights.values()))

    def peer(layer: Callable[[Tensor], Tensor], once: bool) -> Callable[[], object]:
        return lambda: torch.autograd.grad(cross_entropy(plain(x, weights, layer, once), y), list(weights.values()))

    contenders: dict[str, Callable[[], object]] = {
        "identity, first layer once": peer(lambda x: x, True),
        "identity": peer(lambda x: x, False),
        "noiseproof": ours,
    }
    for name, layer in lif_peers(LEAK).items():
        contenders |= {f"{name}, first layer once": peer(layer, True), name: peer(layer, False)}
    rows: list[int] = []
    hook = network.conv1.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    network(x)
    hook.remove()
    seconds = in_turn(contenders, chosen.rounds)
    print(f"VGG5, T = {T}, batch {B}, {chosen.threads} thread(s), {chosen.rounds} rounds in turn")
    print(f"our first layer computes {rows[0]} images for {T * B} that are shown")
    print(f"{'training step':36} {'ms':>8} {'× identity once':>16} {'ours is faster':>22}")
    for name in contenders:
        relative, low, high = ratio(seconds, name, "noiseproof")
        over = ratio(seconds, name, "identity, first layer once")[0]
        faster = "" if name == "noiseproof" else f"{relative:.2f} × ({low:.2f} – {high:.2f})"
        print(f"{name:36} {1e3 * statistics.median(seconds[name]):8.1f} {over:16.3f} {faster:>22}")


def plain(x: Tensor, weights: dict[str, Tensor], layer: Callable[[Tensor], Tensor], once: bool) -> Tensor:
    """The same network, written with another library's neurons, channels last too."""
    x = ((x - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)

    def conv(z: Tensor, name: str) -> Tensor:
        return nn.functional.conv2d(z, weights[f"{name}.weight"], padding=1)

    def spikes(z: Tensor) -> Tensor:
        return layer(z.unflatten(0, (T, B))).flatten(0, 1)

    first = conv(x, "conv1").repeat(T, 1, 1, 1) if once else conv(x.repeat(T, 1, 1, 1), "conv1")
    z = avg_pool2d(spikes(first), 2)
    z = spikes(conv(z, "conv2"))
    z = avg_pool2d(spikes(conv(z, "conv3")), 2).flatten(1)
    for name in ("fc1", "fc2"):
        z = spikes(z @ weights[f"{name}.weight"].T)
    return (z.unflatten(0, (T, B)) @ weights["out.weight"].T).sum(0)


if __name__ == "__main__":
    main()
