"""The work below all measurements: a network at many weights, one after the other or many at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from noiseproof.data import Split
from noiseproof.measure import Measured, measure
from noiseproof.networks import Network
from noiseproof.noise import Noise
from noiseproof.parallel import forked
from noiseproof.parameters import Params, inference_mode, parameters_of
from noiseproof.randomness import generator, stochastic

# Samples at a time. Small blocks stay in the processor's cache: on paper A's CNN 50 is about as fast as 100 and faster than
# 20 or 200. A block chosen by the clock would let the last digits of a loss depend on the moment
BLOCK = 50


@dataclass(frozen=True)
class Chip:
    """One set of weights to measure: θ + α·(noise(θ) − θ), the noise drawn from generator `index` of (`purpose`, `seed`)."""

    noise: Noise
    seed: int
    index: int
    purpose: str = "chip"
    alpha: float = 1.0

    def params(self, nominal: Params) -> Params:
        """Return the chip's parameters: the same in any order, batch, process or machine."""
        made = self.noise(nominal, generator(self.purpose, self.seed, self.index))
        if self.alpha == 1.0:
            return made
        return {name: p + self.alpha * (made[name] - p) for name, p in nominal.items()}


Measurer = Callable[[Iterable[Chip]], Iterator[Measured]]


@contextlib.contextmanager
def measurer(network: nn.Module, split: Split, *, processes: int | None = None, block: int = BLOCK) -> Iterator[Measurer]:
    """Give a function that measures chips on `split`, results in order; memory does not grow with the number of chips.

    On a CPU: a pool of one-thread processes, convolutions in channels_last, blocks of `block` samples. On CUDA: many chips at
    once for networks of ours.
    """
    nominal = {name: _layout(p.detach()) for name, p in parameters_of(network).items()}
    if split.x.is_cuda:
        yield lambda chips: _batched(network, nominal, split, list(chips))
        return

    def work(chip: Chip) -> Measured:
        params = chip.params(nominal)
        with chip.noise.converters(params):
            return measure(network, params, split.x, split.y, block)

    with forked(work, processes) as run:
        yield run


def _layout(p: Tensor) -> Tensor:
    return p.contiguous(memory_format=torch.channels_last) if p.ndim == 4 else p


def _batched(network: nn.Module, nominal: Params, split: Split, chips: list[Chip], at_once: int = 16) -> Iterator[Measured]:
    """Measure chips in groups on one device: batched products over the chips of a group where vmap can do it."""
    if not isinstance(network, Network):
        for chip in chips:
            yield measure(network, chip.params(nominal), split.x, split.y, 1000)
        return
    for start in range(0, len(chips), at_once):
        group = [chip.params(nominal) for chip in chips[start : start + at_once]]
        yield from _measure_group(network, {name: torch.stack([p[name] for p in group]) for name in nominal}, split)


@torch.inference_mode()
def _measure_group(network: nn.Module, stacked: Params, split: Split, block: int = 500) -> Iterator[Measured]:
    count = len(next(iter(stacked.values())))
    correct = torch.zeros(count, dtype=torch.int64, device=split.y.device)
    loss = torch.zeros(count, dtype=torch.float64, device=split.y.device)
    with inference_mode(network), stochastic(0, running=True):
        for x, y in zip(split.x.split(block), split.y.split(block), strict=True):
            logits = vmap(lambda params, x=x: functional_call(network, params, (x,)), randomness="same")(stacked)
            correct += (logits.argmax(-1) == y).sum(-1)
            loss -= logits.float().log_softmax(-1).gather(-1, y.expand(count, -1)[..., None]).sum((-1, -2))
    return (Measured(int(c), len(split), float(value) / len(split)) for c, value in zip(correct, loss, strict=True))
