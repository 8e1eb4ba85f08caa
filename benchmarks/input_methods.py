"""What a training step of the methods on inputs costs on the networks of their papers, as a ratio to plain training of the same network.

    python benchmarks/input_methods.py [--rounds 5] [--batch 16] [--threads 1] [--cpu-time] [--device cpu]

VGG5 for CIFAR-10, 50.6 M parameters, all in one process, in turn. Goals: a step of HIRE-SNN (T 6, 𝒩 2) at most 1.05 × (a plain step and one
step of the optimiser), and its bytes saved for backward at most 0.55 × plain; a step of Robust Stable SNN (R+FGSM and MS-MPPD; T 8, batch
norm, dlif) at most 2.9 × plain. The papers have batches of 32 and 64. "two plain steps of T/2" is the least that HIRE-SNN's Algorithm 1 can
cost: on a CPU it is more than the goal by itself, because the weights of the dense layers, 200 MB, go through memory with every update.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from _timing import in_turn, ratio
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from weight_adversary import bytes_saved

from noiseproof.data import Task
from noiseproof.methods import HIRE, Context, Free, Method, Stable, Standard
from noiseproof.networks import VGG5
from noiseproof.neurons import tune_allocator
from noiseproof.randomness import generator

TASK = Task("images", (3, 32, 32), 10, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26), (0.0, 1.0))
OF_B = VGG5(steps=6, trainable=("threshold", "leak"))
OF_C = VGG5(neuron="dlif", steps=8, leak=0.99, reset="hard", surrogate_settings=(1.0,), dropout=0.0, readout="rate", batch_norm=True)
Work = Callable[[], None]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--cpu-time", action="store_true", help="seconds of this process instead of the clock's, on a busy machine")
    options.add_argument("--device", default="cpu")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    tune_allocator()
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    draw = generator("data", 0)
    batch = (
        torch.rand(chosen.batch, 3, 32, 32, generator=draw).to(chosen.device),
        torch.randint(0, 10, (chosen.batch,), generator=draw).to(chosen.device),
    )
    said = f"batch {chosen.batch}, {chosen.threads} thread(s), {chosen.device}; {chosen.rounds} rounds in turn"

    network = OF_B.build(TASK, generator("weights", 0)).to(chosen.device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.0)  # nothing moves: all work at the same parameters
    work = {"plain": Standard(), "hire, 𝒩 = 2": HIRE(), "hire, 𝒩 = 2, membranes go on": HIRE(membranes="carry"), "free, m = 2": Free(2)}
    contenders = {name: step(method, network, batch, optimizer) for name, method in work.items()}
    contenders["two plain steps of T/2"] = halves(network, batch, optimizer)
    contenders["the optimiser"] = lambda: optimise(optimizer, chosen.device)
    print(f"VGG5 of paper B, T 6, Adam, {said}")
    seconds = in_turn(contenders, chosen.rounds, clock)
    both = [a + b for a, b in zip(seconds["plain"], seconds["the optimiser"], strict=True)]
    bases = ("two plain steps of T/2", "plain and one optimiser step")
    table(seconds | {"plain and one optimiser step": both}, bases, {"hire, 𝒩 = 2": 1.05})
    plain, ours = (saved(method, network, batch) for method in (Standard(), HIRE()))
    print(f"bytes saved for backward: {ours / 2**20:.1f} MiB, plain {plain / 2**20:.1f} MiB, ratio {ours / plain:.3f} (goal 0.55)\n")

    network = OF_C.build(TASK, generator("weights", 0)).to(chosen.device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
    work = {"plain": Standard(), "stable": Stable(), "stable, rho = 0": Stable(rho=0.0)}
    contenders = {name: step(method, network, batch, optimizer) for name, method in work.items()}
    print(f"VGG5 of paper C, batch norm, T 8, SGD, {said}")
    table(in_turn(contenders, chosen.rounds, clock), ("plain",), {"stable": 2.9})


def step(method: Method, network: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> Work:
    """Return one training step."""
    context = Context(generator("method", 0, device=batch[0].device), state=method.start(network))

    def update(loss: Tensor, gradient: object = None, free: object = None) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimise(optimizer, str(batch[0].device))

    return lambda: method.step(network, batch, context, update)


def halves(network: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> Work:
    """Return two training steps with half of the time steps each, and no gradient to the inputs."""
    x, y = batch

    def work() -> None:
        for _ in range(2):
            optimizer.zero_grad()
            cross_entropy(network.run(x, steps=OF_B.steps // 2).logits, y).backward()  # pyright: ignore[reportCallIssue]
            optimise(optimizer, str(x.device))

    return work


def optimise(optimizer: torch.optim.Optimizer, device: str) -> None:
    optimizer.step()
    if device != "cpu":
        torch.cuda.synchronize()


def saved(method: Method, network: nn.Module, batch: tuple[Tensor, Tensor]) -> int:
    context = Context(generator("method", 0, device=batch[0].device), state=method.start(network))
    return bytes_saved(network, lambda: method.loss(network, dict(network.named_parameters()), batch, context))


def table(seconds: dict[str, list[float]], bases: tuple[str, ...], goals: dict[str, float]) -> None:
    """Print every contender's seconds and its ratio to each of the bases; a goal is one for the last of them."""
    print(f"{'step':32} {'ms':>8}" + "".join(f" {'× ' + base:>32}" for base in bases) + f" {'goal':>6}")
    for name, own in seconds.items():
        row = f"{name:32} {1e3 * statistics.median(own):8.0f}"
        for base in bases:
            middle, low, high = ratio(seconds, name, base)
            row += f" {f'{middle:.3f} ({low:.2f} – {high:.2f})':>32}"
        print(row + (f" {goals[name]:6.2f}" if name in goals else ""))


if __name__ == "__main__":
    main()
