"""Every random number comes from a generator made here from (purpose, seed, index): the same in any order, batch, process or machine."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor


def generator(purpose: str, seed: int, index: int = 0, *, device: str | torch.device = "cpu") -> torch.Generator:
    """Return the generator number `index` of the stream that belongs to `purpose` and `seed`.

    PyTorch's CPU generator keeps 32 bits of its seed. So the index goes through a bijection of the 32-bit integers: within
    one stream no two indices ever share a generator.

    Example:
        >>> first, again = generator("chip", seed=0, index=7), generator("chip", seed=0, index=7)
        >>> bool(torch.equal(torch.randn(3, generator=first), torch.randn(3, generator=again)))
        True
    """
    digest = hashlib.blake2b(f"{purpose}/{seed}".encode(), digest_size=4).digest()
    made = torch.Generator(device=device)
    made.manual_seed(_scatter((int.from_bytes(digest, "little") + index) % 2**32))
    return made


def chip_generator(seed: int, chip: int) -> torch.Generator:
    """Return the generator that makes chip number `chip` of `seed`; always on the CPU, so that it is one chip on every device."""
    return generator("chip", seed, chip)


def children(parent: torch.Generator, names: list[str]) -> dict[str, torch.Generator]:
    """Return one generator a name, each independent of which other names there are and of their order."""
    base = int(torch.randint(2**62, (1,), generator=parent, device=parent.device))
    return {name: generator(name, base, device=parent.device) for name in names}


def draw_normal(like: Tensor, stream: torch.Generator) -> Tensor:
    """Return ξ ~ N(0, 1) in the shape, type, device and memory layout of `like`.

    It is drawn in float32, in the order of the indices and on the generator's device: one seed makes the same chip in every
    precision, layout and place. The layout is kept because a convolution is twice as slow on weights of another one.
    """
    xi = torch.randn(like.shape, generator=stream, device=stream.device)
    return torch.empty_like(like).copy_(xi)


def draw_uniform(like: Tensor, stream: torch.Generator) -> Tensor:
    """Return u ~ U[0, 1) in the shape, type, device and memory layout of `like`, drawn as `draw_normal` draws."""
    u = torch.rand(like.shape, generator=stream, device=stream.device)
    return torch.empty_like(like).copy_(u)


def draw_mask(shape: Sequence[int], probability: float, stream: torch.Generator) -> Tensor:
    """Return a mask [*shape] on the generator's device, each entry True with `probability`, which is rounded to a multiple of 2⁻¹⁶.

    It compares 16 random bits an entry: on a CPU that is ten times as fast as Bernoulli numbers, which cost a third of a training step.
    """
    size, threshold = math.prod(shape), round(probability * 2**16) - 2**15
    words = torch.empty(-(-size // 4), dtype=torch.int64, device=stream.device).random_(-(2**63), None, generator=stream)
    bits = words.view(torch.int16)[:size].view(tuple(shape))
    return bits < threshold if threshold < 2**15 else torch.ones_like(bits, dtype=torch.bool)


_current: ContextVar[Callable[[], torch.Generator] | None] = ContextVar("generator of stochastic networks", default=None)


@contextlib.contextmanager
def stochastic(seed: int, index: int = 0, *, running: bool = False) -> Iterator[None]:
    """Say what networks that draw random numbers when they are called (Poisson coding) draw while this is open.

    Every call draws the same numbers, so that two passes over one batch differ by their weights alone: the KL of a network with
    itself is zero, and an attack does not depend on what ran before. With `running` one call goes on where the last one stopped:
    a data set in blocks is then the same whatever the size of the blocks.
    """
    stream = generator("coding", seed, index)
    token = _current.set((lambda: stream) if running else (lambda: generator("coding", seed, index)))
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def drawn_anew(number: int) -> Iterator[None]:
    """Let networks draw other numbers than in the `stochastic` that is open, for every `number` others; number 0 draws those of it.

    Where none is open, nothing changes.
    """
    make = _current.get()
    if make is None or number == 0:
        yield
        return
    base = int(torch.randint(2**62, (1,), generator=make()))
    with stochastic(base, number):
        yield


@contextlib.contextmanager
def globally_seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's global generators (outside networks may draw from them) and leave the user's as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def current_generator() -> torch.Generator | None:
    """Return the generator for one call of a network from the `stochastic` that is open, None where there is none."""
    make = _current.get()
    return None if make is None else make()


def _scatter(x: int) -> int:
    """Return the image of `x` under the 32-bit finaliser of MurmurHash3, a bijection that spreads neighbouring integers."""
    x ^= x >> 16
    x = x * 0x85EBCA6B % 2**32
    x ^= x >> 13
    x = x * 0xC2B2AE35 % 2**32
    return x ^ (x >> 16)
