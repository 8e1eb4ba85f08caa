"""How fast chips are measured: the CNN of paper A on 1,000 images, against a deep-copy loop and against the FLOPs at the GEMM peak.

    python benchmarks/monte_carlo.py [--chips 20] [--rounds 5] [--images 1000]

Goals for 100 chips × 1,000 images: 3 times faster than the loop at batch 1000, 2 times the limit, memory that does not grow.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path

import torch
from _timing import in_turn, ratio
from torch import nn

from noiseproof.data import Split, Task
from noiseproof.evaluation.chips import Chip, measurer
from noiseproof.networks import CNN
from noiseproof.noise import Mismatch
from noiseproof.parallel import cores
from noiseproof.randomness import chip_generator, generator

FLOPS_PER_IMAGE = 2 * (28 * 28 * 64 * 16 + 11 * 11 * 64 * 64 * 16 + 1600 * 256 + 256 * 64 + 64 * 10)
NOISE = Mismatch(zeta=0.3, parameters="all")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--chips", type=int, default=20, help="chips of one round")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--images", type=int, default=1000)
    chosen = options.parse_args()
    network = CNN().build(Task("images", (1, 28, 28), 10, (0.286,), (0.353,), (0.0, 1.0)), generator("weights", 0))
    x = torch.rand(chosen.images, 1, 28, 28, generator=generator("data", 0))
    split = Split(x, torch.zeros(chosen.images, dtype=torch.int64))
    flops = chosen.chips * chosen.images * FLOPS_PER_IMAGE
    peaks: list[float] = []

    with measurer(network, split) as measure:
        list(measure([Chip(NOISE, 0, i) for i in range(cores())]))  # the workers start with their first chip
        seconds = in_turn(
            {
                "deep-copy loop, batch 1000": lambda: deep_copy_loop(network, split, chosen.chips, 1000),
                "deep-copy loop, batch 100": lambda: deep_copy_loop(network, split, chosen.chips, 100),
                "noiseproof": lambda: list(measure([Chip(NOISE, 0, i) for i in range(chosen.chips)])),
                "GEMM peak": lambda: peaks.append(gemm_peak()),
            },
            chosen.rounds,
        )
    limit = flops / statistics.median(peaks)
    print(f"{chosen.chips} chips × {chosen.images} images a round, {chosen.rounds} rounds in turn, {cores()} cores")
    print(f"limit: {flops / 1e12:.2f} TFLOP at {statistics.median(peaks) / 1e9:.0f} GFLOP/s (GEMM, all threads) = {limit:.2f} s")
    for name in ("deep-copy loop, batch 1000", "deep-copy loop, batch 100", "noiseproof"):
        times = seconds[name]
        faster, low, high = ratio(seconds, name, "noiseproof")
        spent = statistics.median(times)
        print(f"{name:28} {spent:7.2f} s   {spent / limit:5.2f} × limit   {faster:5.2f} × ours ({low:.2f} – {high:.2f})")
    print(f"chips for the goal of 100: {100 / chosen.chips * statistics.median(seconds['noiseproof']):.1f} s")
    few, many = resident_growth(network, split, 20), resident_growth(network, split, 200)
    print(f"resident memory of this process and its workers: {few:.0f} MiB after 20 chips, {many:.0f} MiB after 200")


def deep_copy_loop(network: nn.Module, split: Split, chips: int, batch: int) -> list[float]:
    """What anybody would write, with all threads."""
    found = []
    for i in range(chips):
        chip = NOISE({name: p.detach() for name, p in network.named_parameters()}, chip_generator(0, i))
        twin = copy.deepcopy(network).eval()
        with torch.no_grad():
            for name, p in twin.named_parameters():
                p.copy_(chip[name])
            right = sum(int((twin(x).argmax(-1) == y).sum()) for x, y in zip(split.x.split(batch), split.y.split(batch), strict=True))
        found.append(right / len(split))
    return found


def gemm_peak(size: int = 2048, repeats: int = 5) -> float:
    """Return FLOP/s of square matrix products in float32."""
    a = torch.rand(size, size)
    begun = time.perf_counter()
    for _ in range(repeats):
        torch.mm(a, a)
    return repeats * 2 * size**3 / (time.perf_counter() - begun)


def resident_growth(network: nn.Module, split: Split, chips: int) -> float:
    """Return MiB resident in this process and its workers after `chips` chips on 100 images."""
    import os

    few = Split(split.x[:100], split.y[:100])
    with measurer(network, few, block=100) as measure:
        list(measure([Chip(NOISE, 0, i) for i in range(chips)]))
        processes = [os.getpid(), *map(int, Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())]
        resident = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in processes]
    return sum(resident) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
