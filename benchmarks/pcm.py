"""Phase-change memory: how long a chip takes to draw, what five times cost, and the same beside another simulator.

    python benchmarks/pcm.py [--data digits] [--chips 20] [--images 1000] [--rounds 3] [--processes 2]

Goals: a chip of 0.5 M weights in 30 ms on one core; an evaluation at five times at most 1.3 × five evaluations of mismatch; 20 chips
after one year 4 times faster than aihwkit 1.1.0, with the same accuracy. aihwkit computes with its tiles in PyTorch: those in
C++ refuse tensors of another PyTorch than they were built with.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable

import torch
from _timing import in_turn, ratio
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.data import Split
from noiseproof.evaluation.chips import Chip, measurer
from noiseproof.networks import CNN
from noiseproof.noise import PCM, Mismatch, Noise
from noiseproof.parallel import cores
from noiseproof.randomness import chip_generator, generator
from noiseproof.statistics import mean_interval

TIMES = (25.0, 3600.0, 86400.0, 30 * 86400.0, 365 * 86400.0)
YEAR = TIMES[-1]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", default="fashion-mnist", help="28×28 images: fashion-mnist or digits")
    options.add_argument("--chips", type=int, default=20)
    options.add_argument("--images", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--processes", type=int, default=cores(), help="of ours, threads of the others; with 1, processor time counts")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    sampling()
    torch.set_num_threads(chosen.processes)
    data = npf.data.load(chosen.data, limit_train=5000, limit_test=chosen.images)
    network = CNN().build(data.task, generator("weights", 0))
    npf.train(network, data, epochs=2, progress=False)
    five_times(network, data.test, chosen.processes, chosen.rounds)
    for bits in (0, 8):
        beside_aihwkit(network, data.test, chosen.chips, chosen.processes, chosen.rounds, bits)


def clock_of(processes: int) -> Callable[[], float]:
    """Return the time of the processor where all is done by one thread: that does not depend on what else the machine does."""
    return time.process_time if processes == 1 else time.perf_counter


def sampling(rounds: int = 20) -> None:
    """Print what it takes to draw one chip of 0.5 M weights on one core."""
    w = torch.randn(500, 1000, generator=generator("weights", 0))
    draws = iter(range(10**6))
    seconds = in_turn(
        {
            "PCM, one year": lambda: PCM(time=YEAR)({"w": w}, chip_generator(0, next(draws))),
            "PCM, plain equations": lambda: plain(w, YEAR),
            "mismatch": lambda: Mismatch(zeta=0.3)({"w": w}, chip_generator(0, next(draws))),
            "3 M normal numbers": lambda: torch.randn(3 * 2 * w.numel()),
        },
        rounds,
        clock_of(1),
    )
    print(f"one chip of 0.5 M weights, time of one core, median (least) of {rounds}:")
    for name, times in seconds.items():
        print(f"  {name:24} {1000 * statistics.median(times):6.1f} ms ({1000 * min(times):.1f})")


def plain(w: Tensor, time: float) -> Tensor:
    """Return the weights of one chip as the equations are usually written, without compensation."""
    s = 25 / w.abs().max()
    target = torch.stack([(w * s).clamp(0, 25), (-w * s).clamp(0, 25)])
    r = target / 25
    programmed = (target + (0.26348 + 1.9650 * r - 1.1731 * r**2) * torch.randn_like(r)).clamp(min=0)
    log = r.clamp(min=1e-7).log()
    mu, sigma = (-0.0155 * log + 0.0244).clamp(0.049, 0.1), (-0.0125 * log - 0.0059).clamp(0.008, 0.045)
    now = programmed * ((time + 20) / 20) ** -(mu + sigma * torch.randn_like(r)).abs()
    Q = (0.0088 / (programmed / 25) ** 0.65).clamp(max=0.2)
    g = (now + now * Q * math.sqrt(math.log((time + 20 + 250e-9) / 500e-9)) * torch.randn_like(r)).clamp(min=0)
    return (g[0] - g[1]) / s


def five_times(network: nn.Module, split: Split, processes: int, rounds: int) -> None:
    """Print the ratio of five times of PCM to five levels of mismatch, four chips each."""
    with measurer(network, split, processes=processes) as measure:

        def evaluate(noises: list[Noise]) -> Callable[[], object]:
            return lambda: list(measure([Chip(noise, 0, i) for noise in noises for i in range(4)]))

        seconds = in_turn(
            {
                "PCM": evaluate([PCM(time=t) for t in TIMES]),
                "mismatch": evaluate([Mismatch(zeta=z) for z in (0.1, 0.2, 0.3, 0.5, 0.7)]),
            },
            rounds,
            clock_of(processes),
        )
    times, low, high = ratio(seconds, "PCM", "mismatch")
    spent = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"4 chips × 5 times × {len(split)} images: PCM {spent['PCM']:.2f} s, mismatch {spent['mismatch']:.2f} s")
    print(f"  ratio {times:.2f} ({low:.2f} – {high:.2f})")


def beside_aihwkit(network: nn.Module, split: Split, chips: int, processes: int, rounds: int, bits: int) -> None:
    """Print speed and accuracy of ours and of aihwkit on chips that are one year old; `bits` of the converters, 0 for none."""
    noise = PCM(time=YEAR, dac_bits=bits, adc_bits=bits)
    found: dict[str, list[float]] = {}
    try:
        analog = aihwkit_of(network, bits)
    except ImportError as error:
        print(f"aihwkit is left out: {error}")
        return

    def ours() -> None:
        found["ours"] = [result.accuracy for result in measure([Chip(noise, 0, i) for i in range(chips)])]

    def theirs(batch: int) -> None:
        found[f"aihwkit, batch {batch}"] = [accuracy_of_aihwkit(analog, split, batch) for _ in range(chips)]

    with measurer(network, split, processes=processes) as measure:
        contenders: dict[str, Callable[[], object]] = {"ours": ours}
        contenders |= {f"aihwkit, batch {b}": lambda b=b: theirs(b) for b in (50, 250)}
        seconds = in_turn(contenders, rounds, clock_of(processes))
    print(f"{chips} chips × {len(split)} images after one year, {f'converters of {bits} bits' if bits else 'no converters'}:")
    for name, times in seconds.items():
        mean, half = mean_interval(found[name])
        faster, low, high = ratio(seconds, name, "ours")
        print(
            f"  {name:20} {statistics.median(times):6.2f} s   {faster:5.2f} × ours ({low:.2f} – {high:.2f})   "
            f"accuracy {100 * mean:.2f} ± {100 * half:.2f} %"
        )


def aihwkit_of(network: nn.Module, bits: int) -> nn.Module:
    """Return the network on aihwkit's tiles, with the same model of devices, tiles and converters as ours."""
    from aihwkit.inference import GlobalDriftCompensation, PCMLikeNoiseModel
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.simulator.configs import TorchInferenceRPUConfig
    from aihwkit.simulator.configs.utils import (
        BoundManagementType,
        IOParameters,
        MappingParameter,
        NoiseManagementType,
        WeightNoiseType,
    )  # fmt: skip

    config = TorchInferenceRPUConfig()
    config.mapping = MappingParameter(max_input_size=256, max_output_size=256, weight_scaling_omega=1.0, digital_bias=True)
    steps = 2**bits - 2
    config.forward = IOParameters(is_perfect=True) if not bits else IOParameters(
        inp_res=1 / steps, out_res=1 / steps, inp_bound=1.0, out_bound=PCM().adc_range, out_noise=0.0, w_noise=0.0,
        w_noise_type=WeightNoiseType.NONE, bound_management=BoundManagementType.NONE, noise_management=NoiseManagementType.ABS_MAX,
    )  # fmt: skip
    config.noise_model, config.drift_compensation = PCMLikeNoiseModel(g_max=25.0), GlobalDriftCompensation()
    return convert_to_analog(copy.deepcopy(network), config).eval()


@torch.no_grad()
def accuracy_of_aihwkit(analog: nn.Module, split: Split, batch: int) -> float:
    """Return the accuracy of one more chip of aihwkit after one year."""
    analog.program_analog_weights()  # pyright: ignore[reportCallIssue]
    analog.drift_analog_weights(YEAR)  # pyright: ignore[reportCallIssue]
    right = sum(int((analog(x).argmax(-1) == y).sum()) for x, y in zip(split.x.split(batch), split.y.split(batch), strict=True))
    return right / len(split)


if __name__ == "__main__":
    main()
