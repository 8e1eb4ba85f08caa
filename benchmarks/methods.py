"""What a training step of every method costs, as a ratio to plain training, beside the least that its equation needs.

    python benchmarks/methods.py [--rounds 15] [--threads 1] [--device cpu] [--only awp sam]

The CNN of paper A, batch 100, all in one process, in turn. The least is the number of passes forward and backward that the equation
needs, each as long as the one pass of plain training, and one step of the optimiser. Goal: no method above 1.15 times its least.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from _timing import in_turn, ratio
from torch import Tensor
from torch.nn.functional import cross_entropy

from noiseproof.data import Task
from noiseproof.methods import (
    ABCD,
    AMP,
    ASAM,
    AWP,
    SAM,
    BitErrorTraining,
    Context,
    DropConnect,
    Dropout,
    EntropySGD,
    ForwardNoise,
    Method,
    NoiseInjection,
    Standard,
    WeightAdversary,
)
from noiseproof.moments import kept
from noiseproof.networks import CNN
from noiseproof.neurons import tune_allocator
from noiseproof.parameters import Params, call
from noiseproof.randomness import generator

GOAL = 1.15
METHODS: dict[str, Method] = {
    "plain": Standard(),
    "dropout": Dropout(),
    "drop-connect": DropConnect(),
    "forward-noise": ForwardNoise(),
    "forward-noise, of the maximum": ForwardNoise(eta=0.05, relative_to="max"),
    "noise-injection": NoiseInjection(),
    "sam": SAM(),
    "asam": ASAM(),
    "amp": AMP(),
    "awp": AWP(),
    "awp, relative, 10 steps": AWP(gamma=0.1, form="relative", steps=10),
    "awp, inputs, 10 steps": AWP(eps=0.03),
    "bit-error-training": BitErrorTraining(),
    "abcd, L = 2": ABCD(),
    "entropy-sgd, L = 10": EntropySGD(inner_rate=0.003),
    "weight-adversary, N = 1": WeightAdversary(steps=1),
    "weight-adversary, N = 3": WeightAdversary(steps=3),
    "weight-adversary, N = 10": WeightAdversary(),
    "weight-adversary, N = 10, noise": WeightAdversary(eta=0.3, beta_rob=0.1),
    "weight-adversary, l2, N = 10": WeightAdversary(norm="l2"),
    "weight-adversary, l2-euclidean, N = 10": WeightAdversary(norm="l2-euclidean"),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--device", default="cpu")
    options.add_argument("--only", nargs="*", default=[], help="beginnings of names")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    tune_allocator()
    methods = {name: m for name, m in METHODS.items() if name == "plain" or not chosen.only or name.startswith(tuple(chosen.only))}
    task = Task("images", (1, 28, 28), 10, (0.286,), (0.353,), (0.0, 1.0))
    network = CNN().build(task, generator("weights", 0)).to(chosen.device)
    draw = generator("data", 0)
    x, y = torch.rand(100, 1, 28, 28, generator=draw).to(chosen.device), torch.randint(0, 10, (100,), generator=draw).to(chosen.device)
    params: Params = dict(network.named_parameters())
    first = {name: p.detach().clone() for name, p in params.items()}

    def a_pass() -> None:
        torch.autograd.grad(cross_entropy(call(network, params, x), y), list(params.values()))
        synchronise()

    def synchronise() -> None:
        if chosen.device != "cpu":
            torch.cuda.synchronize()

    def trained_by(method: Method) -> Callable[[], None]:
        optimizer = method.make_optimizer(list(params.values())) or torch.optim.Adam(params.values())
        state = method.start(network)

        def update(loss: Tensor, gradient: Params | None = None, free: Params | None = None) -> None:
            optimizer.zero_grad()
            if gradient is None:
                loss.backward()
            else:
                for name, value in gradient.items():
                    params[name].grad = value.detach().clone()
            with kept(optimizer, params, free or {}):
                optimizer.step()
            method.after_step(params)

        def step() -> None:
            context = Context(generator("method", 0, device=chosen.device), state=state)
            method.step(network, (x, y), context, update)
            synchronise()

        return step

    def optimise() -> None:
        adam.step()
        synchronise()

    adam = torch.optim.Adam(first.values())
    for p in first.values():
        p.grad = torch.full_like(p, 1e-3)
    contenders = {"one pass": a_pass, "the optimiser": optimise, **{name: trained_by(method) for name, method in methods.items()}}
    seconds = in_turn(contenders, chosen.rounds)

    print(f"CNN of paper A, batch 100, {chosen.threads} thread(s), {chosen.device}; {chosen.rounds} rounds in turn")
    one, update_cost = (statistics.median(seconds[name]) for name in ("one pass", "the optimiser"))
    print(f"one pass forward and backward {1e3 * one:.1f} ms, a step of Adam {1e3 * update_cost:.2f} ms")
    print(f"{'step':40} {'ms':>8} {'× plain':>8} {'range':>15} {'passes':>7} {'least':>7} {'over least':>11}")
    for name, method in methods.items():
        middle, low, high = ratio(seconds, name, "plain")
        passes = method.gradient_evaluations
        # round by round, so that what else the machine does hits both alike
        least = [passes * a + b for a, b in zip(seconds["one pass"], seconds["the optimiser"], strict=True)]
        in_plain = statistics.median(a / b for a, b in zip(least, seconds["plain"], strict=True))
        over = statistics.median(a / b for a, b in zip(seconds[name], least, strict=True))
        mark = "" if over <= GOAL else "  above the goal"
        print(
            f"{name:40} {1e3 * statistics.median(seconds[name]):8.1f} {middle:8.2f} {f'{low:.2f} – {high:.2f}':>15} {passes:7g} "
            f"{in_plain:7.2f} {over:11.3f}{mark}"
        )


if __name__ == "__main__":
    main()
