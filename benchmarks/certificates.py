"""What certificates cost, as a ratio to a plain forward pass of the same network, in the same process.

    python benchmarks/certificates.py [--rounds 15] [--threads 1] [--lirpa PYTHON] [--no-lsnn]

Goals: interval bounds at most 2.5 forward passes for an MLP 784-256-64-10 (batch 1,000, float32) and 5.5 for the CNN of paper A
(batch 100); backward bounds of 784-128-64-10 (batch 16) at most 150 forward passes; plain intervals of an LSNN (256 units, T 100,
200 samples) in less than 30 s. "with graph" builds the graph of the network in every round, as a training step has to.

auto_LiRPA (0.3, on PyPI) needs torch < 2, so it runs in a Python of its own, in turn with ours: `--lirpa` is the path of one with
auto_LiRPA==0.3, torch==1.13.1 and numpy<1.25. Without it, figures that were measured earlier are printed beside ours. It rounds
nothing outwards, so ours do not there either (arithmetic "exact", in float64).
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _timing import in_turn, ratio
from torch import Tensor

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates._interval import Interval
from noiseproof.certificates.backward import backward_logits, backward_margins
from noiseproof.certificates.intervals import interval_logits, interval_margins
from noiseproof.data import Task
from noiseproof.networks import CNN, LSNN, MLP, Network
from noiseproof.randomness import generator

IMAGES = Task("images", (1, 28, 28), 10, (0.286,), (0.353,), (0.0, 1.0))
SPEECH = Task("speech", (100, 16), 10, (0.0,) * 16, (1.0,) * 16, (-5.0, 5.0))
BOX = Box(z=0.01)
# auto_LiRPA 0.3 for 784-128-64-10, z 0.01, 16 samples, measured earlier: milliseconds and mean width of a logit (another MLP)
EARLIER = {"intervals": (20.8, 2.86), "backward": (1339.0, 1.415), "backward, full": (10309.0, 1.415)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--lirpa", metavar="PYTHON", help="a Python with auto_LiRPA")
    options.add_argument("--no-lsnn", action="store_true", help="leave the LSNN out, which takes half a minute")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    with torch.no_grad():
        print(f"{chosen.threads} thread(s), {chosen.rounds} rounds in turn; ratio to a plain forward pass")
        print(f"{'bound':52} {'ms':>9} {'ratio':>8} {'range':>16} {'goal':>6}")
        for name, architecture, batch, goal in (("MLP 784-256-64-10", MLP(), 1000, 2.5), ("CNN of paper A", CNN(), 100, 5.5)):
            network = architecture.build(IMAGES, generator("weights", 0)).eval()
            compare(f"{name}, batch {batch}", intervals(network, images(batch)[0]), goal, chosen.rounds)
        network = MLP(hidden=(128, 64)).build(IMAGES, generator("weights", 0)).eval()
        compare("MLP 784-128-64-10, batch 16", margins(network, *images(16)), 150, chosen.rounds)
        against_lirpa(network, images(16)[0], chosen.lirpa, max(3, chosen.rounds // 5), chosen.threads)
        if not chosen.no_lsnn:
            recurrent()


def images(batch: int) -> tuple[Tensor, Tensor]:
    """Return images and labels."""
    draw = generator("data", 0)
    return torch.rand(batch, 1, 28, 28, generator=draw), torch.randint(0, 10, (batch,), generator=draw)


def intervals(network: Network, x: Tensor) -> dict[str, Callable[[], object]]:
    """Return a forward pass and the interval bounds of the logits, in float32, as in training."""
    graph = graph_of(network, BOX, arithmetic="exact", dtype=torch.float32)
    safe = graph_of(network, BOX)
    return {
        "forward": lambda: network(x),
        "intervals, float32": lambda: interval_logits(graph, x),
        "intervals, float32, with graph": lambda: interval_logits(graph_of(network, BOX, arithmetic="exact", dtype=torch.float32), x),
        "intervals, float64, rounded outwards": lambda: interval_logits(safe, x),
    }


def margins(network: Network, x: Tensor, y: Tensor) -> dict[str, Callable[[], object]]:
    """Return a forward pass and all bounds of the margins, in float64 and rounded outwards, as certificates are."""
    graph = graph_of(network, BOX)
    return {
        "forward": lambda: network(x),
        "intervals": lambda: interval_margins(graph, x, y),
        "backward": lambda: backward_margins(graph, x, y),
        "backward, full": lambda: backward_margins(graph, x, y, full=True),
    }


def compare(title: str, contenders: dict[str, Callable[[], object]], goal: float, rounds: int) -> None:
    """Print the milliseconds of all contenders and their ratios to the forward pass."""
    seconds = in_turn(contenders, rounds)
    for name in contenders:
        middle, low, high = ratio(seconds, name, "forward")
        milliseconds = 1000 * sorted(seconds[name])[rounds // 2]
        held = "" if name == "forward" else f"{goal:g}"
        print(f"{f'{title}: {name}':52.52} {milliseconds:9.2f} {middle:8.2f} {f'{low:.2f} – {high:.2f}':>16} {held:>6}")


def against_lirpa(network: Network, x: Tensor, python: str | None, rounds: int, threads: int) -> None:
    """Print seconds and widths of the logits' bounds of both, taken in turn, of the same real numbers; ours must never be wider."""
    graph = graph_of(network, BOX, arithmetic="exact")
    bounds = {
        "intervals": lambda: interval_logits(graph, x),
        "backward": lambda: backward_logits(graph, x),
        "backward, full": lambda: backward_logits(graph, x, full=True),
    }
    print(f"\n{'logits of 784-128-64-10, batch 16':34} {'ms':>9} {'width':>8} {'auto_LiRPA ms':>14} {'width':>8} {'faster':>8}")
    theirs = None if python is None else lirpa(network, x, python, threads)
    contenders: dict[str, Callable[[], object]] = {**bounds}
    if theirs is not None:
        contenders |= {f"auto_LiRPA {name}": functools.partial(theirs, name) for name in bounds}
    seconds = in_turn(contenders, rounds)
    for name, bound in bounds.items():
        found, own = bound(), 1000 * statistics.median(seconds[name])
        if theirs is None:
            other, wide = EARLIER[name]
            times, verdict = other / own, "measured earlier, another machine and MLP"
        else:
            held, other = theirs(name), 1000 * statistics.median(seconds[f"auto_LiRPA {name}"])
            wide, times = mean_width(held), ratio(seconds, f"auto_LiRPA {name}", name)[0]
            room = 1e-5 * float(held.high.abs().max())  # theirs are rounded to float32, inwards too
            wider = torch.stack([found.low < held.low - room, found.high > held.high + room]).double().mean()
            verdict = "never wider" if wider == 0 else f"wider at {wider:.1%} of the ends"
        print(f"{name:34} {own:9.2f} {mean_width(found):8.3f} {other:14.1f} {wide:8.3f} {times:8.1f}  {verdict}")


def mean_width(bounds: Interval) -> float:
    return float((bounds.high - bounds.low).mean())


def lirpa(network: Network, x: Tensor, python: str, threads: int) -> Callable[[str], Interval]:
    """Return a function that lets auto_LiRPA bound the logits in its own process, which ends with ours."""
    layers = [layer for layer in network.children() if isinstance(layer, torch.nn.Linear)]
    given = {
        "threads": threads, "z": BOX.z, "x": network.normalise(x).flatten(1).tolist(),  # pyright: ignore
        "weights": [layer.weight.tolist() for layer in layers], "biases": [layer.bias.tolist() for layer in layers],
    }  # fmt: skip
    command = [python, str(Path(__file__).with_name("_lirpa_worker.py"))]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert worker.stdin is not None
    assert worker.stdout is not None

    def ask(what: Any) -> dict[str, Any]:
        print(json.dumps(what), file=worker.stdin, flush=True)
        return json.loads(worker.stdout.readline())  # pyright: ignore

    ask(given)

    def bounds(name: str) -> Interval:
        answer = ask(name)
        return Interval(torch.tensor(answer["low"]), torch.tensor(answer["high"]))

    return bounds


def recurrent() -> None:
    """Print the seconds of plain intervals of an LSNN."""
    network = LSNN().build(SPEECH, generator("weights", 0)).eval()
    x, y = torch.randn(200, *SPEECH.shape, generator=generator("data", 0)).clamp(-5, 5), torch.zeros(200, dtype=torch.long)
    begun = time.perf_counter()
    interval_margins(graph_of(network, BOX), x, y)
    print(f"\nLSNN, 256 units, T 100, 200 samples, plain intervals, float64: {time.perf_counter() - begun:.1f} s (goal 30)")


if __name__ == "__main__":
    main()
