"""Attacks on stored weights: the worst few bits to flip, found one after the other by gradient and loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from noiseproof.attacks.objectives import Batch, mean_gradient, mean_value, reference_of
from noiseproof.attacks.weights import Perturbation
from noiseproof.errors import require, require_number
from noiseproof.noise._grid import Encoding, Grid, Per, Range, Stored
from noiseproof.parameters import Params, select
from noiseproof.randomness import children, draw_normal

_Bits = tuple[str, tuple[int, ...], tuple[int, ...]]  # a parameter, the places of some of its weights, and the bit of each


@dataclass(frozen=True)
class Flipped(Perturbation):
    """What flipping bits made: `delta` = θ* − θ in the unit of the parameters, and every flip as (parameter, place in it, bit)."""

    flips: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class BitFlips:
    """Search for the stored bits whose flips make an objective largest: the progressive bit search.

    Weights are stored as in `BitErrors`. In each round every layer offers its best bits by the gradient, those of the largest
    g·(w after the flip − w), of b bits a weight; each layer's offer is tried, and the one that makes the objective largest is kept.
    A bit flips once. Where no offer makes the objective larger (a flip of the highest bit is far from a small step) the layers offer
    their next bits, and the search ends early after `patience` such rounds in a row; the paper flips the best of them all the same.
    For KL, whose gradient vanishes at θ itself, the first gradient is taken a little beside it, as in the attack on weights.
    Source: Rakin, He, Fan, ICCV 2019, arXiv:1903.12269, "progressive bit search".

    Raises `NoiseproofError` when a setting is out of its range, when `parameters` selects nothing, or when CE or DLR is
    asked for without labels.

    Example:
        >>> network = nn.Linear(4, 3)
        >>> params = {"weight": torch.linspace(-1, 1, 12).view(3, 4), "bias": torch.zeros(3)}
        >>> batch = (torch.linspace(0, 1, 32).view(8, 4), torch.zeros(8, dtype=torch.int64))
        >>> worst = BitFlips(flips=2)(network, params, [batch], torch.Generator().manual_seed(0))
        >>> len(worst.flips), {bit for _, _, bit in worst.flips}
        (2, {6})
    """

    # bits that are flipped, at most
    flips: int = 10
    # whether so many are flipped in each layer, or in the whole network
    per_layer: bool = False
    # bits that a layer offers, and flips, at a time
    at_once: int = 1
    # rounds in a row without a flip that makes the objective larger, after which the search ends
    patience: int = 20
    # bits a weight, 1 to 16
    bits: int = 8
    # what the range of the stored numbers is taken of: the tensor, or each output channel
    per: Per = "tensor"
    # symmetric | asymmetric, as in bit-errors
    range: Range = "symmetric"
    # signed: two's complement; unsigned: counted from the low end of the range
    encoding: Encoding = "signed"
    # what is made large; kl needs no labels; ce and kl grow without end on a few samples, dlr less so
    objective: Literal["ce", "kl", "dlr"] = "ce"
    # standard deviation of the relative noise beside which the first gradient of kl is taken
    initial_std: float = 1e-3
    # weights | all | patterns of names
    parameters: str = "weights"

    def __post_init__(self) -> None:
        require_number("flips", self.flips, 0, whole=True)
        require_number("at_once", self.at_once, 1, whole=True)
        require_number("patience", self.patience, 1, whole=True)
        require(self.encoding in ("signed", "unsigned"), "encoding", self.encoding, "give signed or unsigned")
        require(self.objective in ("ce", "kl", "dlr"), "objective", self.objective, "give ce, kl or dlr")
        require_number("initial_std", self.initial_std, 0)
        self.grid  # noqa: B018 (checks the other settings)

    @property
    def grid(self) -> Grid:
        """The numbers that there are."""
        return Grid(self.bits, self.per, self.range)

    def __call__(self, network: nn.Module, params: Params, batches: Sequence[Batch], generator: torch.Generator) -> Flipped:
        """Return the worst flips found, shared by all `batches`: pairs (x [B, …], y [B] or None).

        KL is taken between the network before it is quantised and after the flips.
        """
        fixed = {name: p.detach() for name, p in params.items()}
        chosen = select(fixed, self.parameters)
        search = _Search(self, network, fixed, chosen, batches, generator)
        search.run()
        found = search.point()
        return Flipped(found, {name: found[name] - p for name, p in chosen.items()}, search.value, tuple(search.done))

    def random_point(self, network: nn.Module, params: Params, generator: torch.Generator) -> Params:
        """Return the parameters after as many flips of random bits: what errors that nobody aims at could do."""
        fixed = {name: p.detach() for name, p in params.items()}
        chosen = select(fixed, self.parameters)
        streams = children(generator, [*chosen, "places"])
        memory = {name: self.grid.encode(p, streams[name]) for name, p in chosen.items()}
        masks = {name: torch.zeros_like(codes) for name, (codes, _) in memory.items()}
        for names in [[name] for name in chosen] if self.per_layer else [list(chosen)]:
            sizes = torch.tensor([chosen[name].numel() * self.bits for name in names])
            for place in _without_repeats(int(sizes.sum()), self.flips, streams["places"]):
                which = int(torch.searchsorted(sizes.cumsum(0), place, right=True))
                at = place - int(sizes[:which].sum())
                _set(masks[names[which]], (at // self.bits,), (at % self.bits,))
        return fixed | {name: _value(chosen[name], *memory[name], masks[name], self.encoding) for name in chosen}

    def describe(self) -> dict[str, Any]:
        """Return name and settings, as they stand in every record."""
        return {"name": "bit-flips", **asdict(self)}

    def describe_random(self) -> dict[str, Any]:
        """Return name and settings of `random_point`."""
        searching = ("at_once", "patience", "objective", "initial_std")
        return {"name": "random-bit-flips", **{key: value for key, value in asdict(self).items() if key not in searching}}


class _Search:
    """One search under way: what is stored, what was flipped, and the objective there."""

    def __init__(
        self, attack: BitFlips, network: nn.Module, params: Params, chosen: Params, batches: Sequence[Batch], generator: torch.Generator
    ) -> None:
        self.attack, self.network, self.params, self.chosen, self.batches = attack, network, params, chosen, batches
        self.references = [reference_of(attack.objective, network, params, x) for x, _ in batches]
        self.streams = children(generator, list(chosen))
        self.memory = {name: attack.grid.encode(p, self.streams[name]) for name, p in chosen.items()}
        self.masks = {name: torch.zeros_like(codes) for name, (codes, _) in self.memory.items()}
        self.refused = {name: torch.zeros_like(codes) for name, (codes, _) in self.memory.items()}
        self.left = dict.fromkeys(chosen, attack.flips)
        self.done: list[tuple[str, int, int]] = []
        self.value = self._value(self.point())

    def point(self) -> Params:
        """Return the parameters with the bits flipped so far."""
        return self.params | {name: self._weights(name, self.masks[name]) for name in self.chosen}

    def run(self) -> None:
        """Flip bits until there are none left, or no more that make the objective larger."""
        failures, gradient = 0, None
        while failures < self.attack.patience:
            point = self.point()
            names = [name for name, left in self.left.items() if left > 0]
            if names and gradient is None:
                gradient = mean_gradient(self.attack.objective, self.network, self._beside(point), names, self.batches, self.references)
            offers = [offer for name in names for offer in self._offer(name, (gradient or {})[name])]
            if not offers:
                return
            trials = [self._value(point | {name: self._weights(name, _with(self.masks[name], at, bits))}) for name, at, bits in offers]
            best = max(range(len(trials)), key=trials.__getitem__)
            if trials[best] > self.value:
                self._flip(offers[best], trials[best])
                failures, gradient = 0, None
            else:
                failures += 1
                for name, places, bits in offers:
                    _set(self.refused[name], places, bits)

    def _flip(self, offer: _Bits, value: float) -> None:
        name, places, bits = offer
        self.value = value
        _set(self.masks[name], places, bits)
        self.done += [(name, place, bit) for place, bit in zip(places, bits, strict=True)]
        for other in self.left if not self.attack.per_layer else (name,):
            self.left[other] -= len(places)
        for refused in self.refused.values():
            refused.zero_()

    def _offer(self, name: str, gradient: Tensor) -> list[_Bits]:
        """Return the best bits of a layer, in a list; an empty one where no flip promises anything."""
        gains, bits = self._gains(name, gradient)
        top = gains.topk(min(self.attack.at_once, self.left[name], gains.numel()))
        places = top.indices[top.values > 0]
        return [(name, tuple(places.tolist()), tuple(bits[places].tolist()))] if len(places) else []

    def _gains(self, name: str, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest g·(w after the flip − w) of every weight, and its bit [n]; bits that were flipped or refused don't count."""
        mask, now = self.masks[name], self._weights(name, self.masks[name])
        out = mask | self.refused[name]
        gains, bits = torch.full_like(gradient, -torch.inf), torch.zeros_like(mask)
        for i in range(self.attack.bits):
            gain = gradient * (self._weights(name, mask ^ (1 << i)) - now)
            better = (gain > gains) & ((out >> i) & 1 == 0)
            gains, bits = torch.where(better, gain, gains), torch.where(better, i, bits)
        return gains.flatten(), bits.flatten()

    def _beside(self, point: Params) -> Params:
        if self.attack.objective != "kl" or self.done:
            return point
        return point | {n: point[n] * (1 + self.attack.initial_std * draw_normal(p, self.streams[n])) for n, p in self.chosen.items()}

    def _weights(self, name: str, mask: Tensor) -> Tensor:
        return _value(self.chosen[name], *self.memory[name], mask, self.attack.encoding)

    def _value(self, point: Params) -> float:
        return mean_value(self.attack.objective, self.network, point, self.batches, self.references)


def _value(theta: Tensor, codes: Tensor, stored: Stored, mask: Tensor, encoding: Encoding) -> Tensor:
    return stored.decode(stored.flip(codes, mask, encoding), theta)


def _set(mask: Tensor, places: tuple[int, ...], bits: tuple[int, ...]) -> None:
    """Set bits of the mask, in place; places count in the order of the indices, whatever the memory layout."""
    for place, bit in zip(places, bits, strict=True):
        where = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), mask.shape))
        mask[where] |= 1 << bit


def _with(mask: Tensor, places: tuple[int, ...], bits: tuple[int, ...]) -> Tensor:
    changed = mask.clone()
    _set(changed, places, bits)
    return changed


def _without_repeats(size: int, count: int, stream: torch.Generator) -> list[int]:
    """Return `count` different whole numbers below `size` (all of them where there are no more), each choice equally likely."""
    if size < 10 * count:
        return torch.randperm(size, generator=stream, device=stream.device)[:count].tolist()
    found: dict[int, None] = {}
    while len(found) < count:
        found[int(torch.randint(size, (1,), generator=stream, device=stream.device))] = None
    return list(found)
