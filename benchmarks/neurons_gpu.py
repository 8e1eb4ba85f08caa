"""What spiking layers cost on a GPU: share of the card's bandwidth, and ratios to the plain equation and to SpikingJelly.

    python benchmarks/neurons_gpu.py [--rounds 20]

LIF, 64 × 65,536 neurons, forward and backward. Five passes over memory are the least there is (read x, write s; read gs, read x,
write gx); the share is the time that these take at the speed of a large copy, measured beside it, to the time that the layer takes.
Goal: 80 %. Recurrent: 256 adaptive neurons, T = 100, batch 100. All contenders run in turn; ratios are to ours, larger is slower.
Ends with 2 where there is no GPU or no Triton.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from noiseproof.neurons.equation import Constants, Form
from noiseproof.neurons.kernels import binding, integrate, using
from noiseproof.neurons.kernels._inputs import Inputs
from noiseproof.neurons.surrogates import Atan, Triangle

ROWS, NEURONS, GOAL = 64, 65_536, 0.8
UNITS, STEPS, BATCH = 256, 100, 100


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=20)
    rounds = options.parse_args(arguments).rounds
    missing = "no GPU" if not torch.cuda.is_available() else "no triton" if importlib.util.find_spec("triton") is None else None
    if missing:
        print(f"neurons_gpu: {missing} here, nothing measured", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {rounds} rounds in turn, median")
    for dtype in (torch.float32, torch.bfloat16):
        for steps in (8, 32):
            layer(dtype, steps, rounds)
    recurrent(rounds)
    return 0


def milliseconds(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median time of every contender, by the GPU's own clock, after three rounds that do not count."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 3):
        for name, work in contenders.items():
            begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record()
            work()
            done.record()
            torch.cuda.synchronize()
            if turn >= 3:
                taken[name].append(begun.elapsed_time(done))
    return {name: statistics.median(values) for name, values in taken.items()}


def layer(dtype: torch.dtype, steps: int, rounds: int) -> None:
    form = Form("soft", surrogate=Atan())
    leak, theta = (torch.full((1, 1, 1), value, device="cuda") for value in (0.5, 1.0))
    x = torch.randn(steps, ROWS, NEURONS, device="cuda").to(dtype).requires_grad_()
    gs = torch.randn_like(x)
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)

    def ours() -> tuple[Tensor, Tensor]:
        # not by `integrate`, which computes half precision in float32
        spikes = binding.integrate(Inputs(x, None, None, None, None, leak, theta, None, None, None, None), form, steps, "triton").spikes
        return spikes, torch.autograd.grad(spikes, x, gs)[0]

    def plain() -> tuple[Tensor, Tensor]:
        with using("reference"):
            spikes = integrate(x, Constants(leak, theta), form).spikes
        return spikes, torch.autograd.grad(spikes, x, gs.to(spikes.dtype))[0]

    contenders: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(source), "ours": ours, "reference": plain}
    neighbour = spikingjelly()
    if neighbour is not None:
        contenders["SpikingJelly"] = lambda: torch.autograd.grad(neighbour(x), x, gs)
    check(ours(), plain())
    took = milliseconds(contenders, rounds)
    speed = 2 * source.nbytes / took["copy"]
    share = 5 * x.nbytes / speed / took["ours"]
    others = ", ".join(f"{name} {took[name] / took['ours']:.2f} ×" for name in contenders if name not in ("copy", "ours"))
    name = f"LIF {str(dtype).removeprefix('torch.')}, T = {steps}"
    bandwidth = f"{share:.0%} of the copy's {speed / 1e6:,.0f} GB/s (goal {GOAL:.0%})"
    print(f"{name}: {bandwidth}, {took['ours']:.2f} ms; {others}")


def spikingjelly() -> Callable[[Tensor], Tensor] | None:
    """Return the same layer of SpikingJelly with its fastest kernels, None where it is not installed."""
    try:
        from spikingjelly.activation_based import functional, neuron, surrogate
    except ImportError:
        return None
    settings: dict[str, Any] = {
        "tau": 2.0, "decay_input": False, "v_reset": None, "surrogate_function": surrogate.ATan(), "step_mode": "m"
    }  # fmt: skip
    made: Any = None
    for more in ({"backend": "triton"}, {"backend": "cupy"}, {}):  # from 2.0 on it chooses by itself
        try:
            made = neuron.LIFNode(**settings, **more).cuda()
            break
        except (TypeError, ValueError, NotImplementedError, ImportError):
            continue
    if made is None:
        return None

    def run(x: Tensor) -> Tensor:
        functional.reset_net(made)
        return made(x)

    return run


def recurrent(rounds: int) -> None:
    form = Form("soft", adaptive=True, refractory=2, surrogate=Triangle(0.3))
    leak, theta, beta, rho = (torch.full((1, 1, 1), value, device="cuda", requires_grad=True) for value in (0.95, 1.0, 1.6, 0.99))
    x = (torch.randn(STEPS, BATCH, UNITS, device="cuda") * 0.3).requires_grad_()
    # multiples of 1/1024: their sums are the same in any order, so that spikes can be compared
    weights = ((torch.randn(UNITS, UNITS, device="cuda") * 64 / UNITS**0.5).round() / 1024).requires_grad_()
    gs = torch.randn_like(x)

    def step(backend: str) -> Callable[[], tuple[Tensor, ...]]:
        def work() -> tuple[Tensor, ...]:
            with using(backend):
                spikes = integrate(x, Constants(leak, theta, None, beta, rho), form, recurrent=weights).spikes
            return spikes, *torch.autograd.grad(spikes, (x, weights, leak, theta, beta, rho), gs)

        return work

    contenders = {backend: step(backend) for backend in ("triton", "handwritten", "reference")}
    check(contenders["triton"](), contenders["reference"]())
    took = milliseconds(dict(contenders), rounds)
    others = ", ".join(f"{name} {took[name] / took['triton']:.2f} ×" for name in contenders if name != "triton")
    print(f"recurrent ALIF {UNITS}, T = {STEPS}, batch {BATCH}: {took['triton']:.2f} ms; {others}")


def check(mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    """Say how far a contender is from the reference, before its time is believed."""
    different = int((mine[0].float() != theirs[0].float()).sum())
    errors = [float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(mine[1:], theirs[1:], strict=True)]
    print(f"{different} of {mine[0].numel():,} spikes differ from the reference; error of the gradients at most {max(errors):.1e}")


if __name__ == "__main__":
    sys.exit(main())
