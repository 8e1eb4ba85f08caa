"""What a training step of weight-adversary costs, as a ratio to plain training of the same network, in the same process.

    python benchmarks/weight_adversary.py [--rounds 15] [--threads 1] [--device cpu]

The CNN of paper A, batch 100. "plain reading" is Algorithm 1 as one writes it down at first: a copy of the network for
every point, the clean output computed again at every step. Goals: 3.4 / 5.5 / 12.5 for N = 1 / 3 / 10; bytes saved for
backward at most 2.1 times plain.
"""

from __future__ import annotations

import argparse
import copy

import torch
from _timing import in_turn, ratio
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from noiseproof.data import Task
from noiseproof.methods import Context, ForwardNoise, Method, Standard, WeightAdversary
from noiseproof.networks import CNN
from noiseproof.randomness import generator

GOALS = {1: 3.4, 3: 5.5, 10: 12.5}
LEAST = {1: 3, 3: 5, 10: 12}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--device", default="cpu")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    task = Task("images", (1, 28, 28), 10, (0.286,), (0.353,), (0.0, 1.0))
    network = CNN().build(task, generator("weights", 0)).to(chosen.device)
    draw = generator("data", 0)
    batch = (torch.rand(100, 1, 28, 28, generator=draw).to(chosen.device), torch.randint(0, 10, (100,), generator=draw).to(chosen.device))
    optimizer = torch.optim.Adam(network.parameters())

    def update(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if chosen.device != "cpu":
            torch.cuda.synchronize()

    def step(method: Method):
        return lambda: method.step(network, batch, Context(generator("method", 0, device=chosen.device)), update)

    contenders = {"plain": step(Standard()), "forward noise": step(ForwardNoise(parameters="all"))}
    for n in LEAST:
        contenders[f"weight-adversary N = {n}"] = step(WeightAdversary(steps=n, parameters="all"))
        contenders[f"plain reading N = {n}"] = lambda n=n: update(plain_reading(network, batch, n))
    seconds = in_turn(contenders, chosen.rounds)

    print(f"CNN of paper A, batch 100, {chosen.threads} thread(s), {chosen.device}; {chosen.rounds} rounds in turn")
    print(f"{'step':24} {'ratio to plain':>15} {'range':>16} {'least work':>11} {'goal':>6}")
    for name in contenders:
        middle, low, high = ratio(seconds, name, "plain")
        n = int(name.rpartition(" ")[2]) if name.startswith("weight") else None
        least, goal = (str(LEAST[n]), str(GOALS[n])) if n else ("", "")
        print(f"{name:24} {middle:15.2f} {f'{low:.2f} – {high:.2f}':>16} {least:>11} {goal:>6}")
    plain = bytes_saved(network, lambda: Standard().loss(network, dict(network.named_parameters()), batch, Context(draw)))
    method = WeightAdversary(parameters="all")
    ours = bytes_saved(network, lambda: method.loss(network, dict(network.named_parameters()), batch, Context(generator("m", 0))))
    print(f"bytes saved for backward: {ours / 2**20:.1f} MiB, plain {plain / 2**20:.1f} MiB, ratio {ours / plain:.3f} (goal 2.1)")


def plain_reading(network: nn.Module, batch: tuple[Tensor, Tensor], n: int, zeta: float = 0.1, beta: float = 0.25) -> Tensor:
    """Return the loss (perturbation as a constant) with a copy of the network for every point and no shared work."""
    x, y = batch
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(p.abs() * 1e-3 * torch.randn_like(p))
    for _ in range(n):
        kl = kl_div(twin(x).log_softmax(-1), network(x).softmax(-1), reduction="batchmean")
        gradients = torch.autograd.grad(kl, list(twin.parameters()))
        moved = copy.deepcopy(twin)
        with torch.no_grad():
            for p, old, theta, g in zip(moved.parameters(), twin.parameters(), network.parameters(), gradients, strict=True):
                r = zeta * theta.abs()
                p.copy_((old + r / n * g.sign()).clamp(theta - r, theta + r))
        twin = moved
    shift = {name: p.detach() - q.detach() for (name, p), q in zip(twin.named_parameters(), network.parameters(), strict=True)}
    star = {name: p + shift[name] for name, p in network.named_parameters()}
    worst = torch.func.functional_call(network, star, (x,)).log_softmax(-1)
    return cross_entropy(network(x), y) + beta * kl_div(worst, network(x).softmax(-1), reduction="batchmean")


def bytes_saved(network: nn.Module, loss) -> int:
    """Return the bytes that the graph of a loss holds for backward, parameters left out, every storage counted once."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> tuple[Tensor, int]:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor, 0

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed[0]):
        value = loss()
        # the attack's graphs are gone by now: count what the loss itself still holds
        alive = _reachable(value)
    return sum(size for pointer, size in held.items() if pointer in alive)


def _reachable(loss: Tensor) -> set[int]:
    """Return the storages that are saved anywhere in the graph of `loss`."""
    found: set[int] = set()
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for name in dir(node):
            if name.startswith("_raw_saved"):
                saved = getattr(node, name)
                for one in saved if isinstance(saved, tuple | list) else [saved]:
                    data = getattr(one, "data", None)
                    if isinstance(data, tuple) and isinstance(data[0], Tensor):
                        found.add(data[0].untyped_storage().data_ptr())
        waiting += [parent for parent, _ in node.next_functions]
    return found


if __name__ == "__main__":
    main()
