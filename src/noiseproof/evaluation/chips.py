"""The work below all measurements: a network at many weights, one after the other or many at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import vmap

from noiseproof.data import Split
from noiseproof.evaluation.prefix import MOST_BYTES, cut, first_changed
from noiseproof.measure import Measured, measure
from noiseproof.networks import Network
from noiseproof.noise import Compose, Noise
from noiseproof.parallel import forked
from noiseproof.parameters import Params, functional_call, inference_mode, parameters_of
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
        # what the noise does not touch stays the same tensor
        return {name: p if made[name] is p else p + self.alpha * (made[name] - p) for name, p in nominal.items()}


Measurer = Callable[[Iterable[Chip]], Iterator[Measured]]


@contextlib.contextmanager
def measurer(
    network: nn.Module, split: Split, *, processes: int | None = None, block: int = BLOCK, most_bytes: int = MOST_BYTES
) -> Iterator[Measurer]:
    """Give a function that measures chips on `split`, results in order; memory does not grow with the number of chips.

    On a CPU: a pool of one-thread processes, convolutions in channels_last, blocks of `block` samples. On CUDA: many chips at
    once for networks of ours. Where the chips of one call agree in the first layers of a network of ours, what comes out of
    these is computed once and kept, if it takes at most `most_bytes` of memory, until chips that begin to differ elsewhere follow.
    """
    with contextlib.ExitStack() as pool:
        yield _Bench(network, split, processes, block, most_bytes, pool).measure


class _Bench:
    """Holds one pool of processes at a time, for chips that agree in the same number of first layers."""

    def __init__(
        self, network: nn.Module, split: Split, processes: int | None, block: int, most_bytes: int, pool: contextlib.ExitStack
    ) -> None:
        self.network, self.split, self.processes, self.block, self.most_bytes = network, split, processes, block, most_bytes
        self.nominal = {name: _layout(p.detach()) for name, p in parameters_of(network).items()}
        self.pool, self.run, self.open_for = pool, None, -1
        self.firsts: dict[int, tuple[Noise, int]] = {}  # by the noise's id; the noise is kept so that no other gets the same id

    def measure(self, chips: Iterable[Chip]) -> Iterator[Measured]:
        chips = list(chips)
        if not chips:
            return iter(())
        first = min(self._first(chip) for chip in chips)
        if self.run is None or first != self.open_for:
            self.pool.close()
            self.run, self.open_for = self._open(first), first
        return self.run(chips)

    def _first(self, chip: Chip) -> int:
        """Return the first layer in which the chips of a noise differ from the network."""
        if not isinstance(self.network, Network):
            return 0
        if id(chip.noise) not in self.firsts:
            self.firsts[id(chip.noise)] = (chip.noise, first_changed(self.network, self.nominal, [chip.params(self.nominal)]))
        return self.firsts[id(chip.noise)][1]

    def _open(self, first: int) -> Measurer:
        nominal, network, split = self.nominal, self.network, self.split
        rest = cut(network, nominal, split, first, self.block, self.most_bytes) if first and isinstance(network, Network) else None
        if rest is not None:
            network, split = rest.layers, rest.split
        own = rest.layers.own if rest is not None else dict
        if split.x.is_cuda:
            together = isinstance(self.network, Network)
            return lambda chips: _batched(network, nominal, split, list(chips), own, together)

        def work(chip: Chip) -> Measured:
            params = chip.params(nominal)
            with chip.noise.converters(params):
                return measure(network, own(params), split.x, split.y, self.block)

        return self.pool.enter_context(forked(work, self.processes))


def _layout(p: Tensor) -> Tensor:
    return p.contiguous(memory_format=torch.channels_last) if p.ndim == 4 else p


def _batched(
    network: nn.Module,
    nominal: Params,
    split: Split,
    chips: list[Chip],
    own: Callable[[Params], Params] = dict,
    together: bool = True,
    at_once: int = 16,
) -> Iterator[Measured]:
    """Measure chips in groups on one device: batched products over the chips of a group where vmap can do it.

    `own` picks the parameters of the layers that are run; without `together` the chips are measured one by one.
    """
    if not together or any(chip.noise.converts for chip in chips):
        for chip in chips:
            params = chip.params(nominal)
            with chip.noise.converters(params):
                yield measure(network, own(params), split.x, split.y, 1000)
        return
    for start in range(0, len(chips), at_once):
        group = [own(chip.params(nominal)) for chip in chips[start : start + at_once]]
        yield from _measure_group(network, {name: torch.stack([p[name] for p in group]) for name in group[0]}, split)


def steps_of(noise: Noise) -> tuple[Noise, ...]:
    """Return the noises that a composition is made of, in order; any other noise by itself."""
    return tuple(one for step in noise.steps for one in steps_of(step)) if isinstance(noise, Compose) else (noise,)


def with_steps(noise: Noise, steps: Sequence[Noise]) -> Noise:
    """Return a noise of other steps; a composition stays one, even of a single step, so that its chips keep their random numbers."""
    return Compose(tuple(steps)) if isinstance(noise, Compose) else steps[0]


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
