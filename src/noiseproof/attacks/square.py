from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noiseproof.attacks._ball import Ball
from noiseproof.attacks._base import Attack, loss_values
from noiseproof.attacks._view import Values, View
from noiseproof.errors import require, require_number

_FALLS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: where the share p is halved


@dataclass(frozen=True)
class Square(Attack):
    """Random search without gradients: change one square, keep it where the loss rises. `queries` forward passes a start at most.

    l∞: x begins as stripes x ± ε one pixel wide; then a square is set to x ± ε, one sign a channel. l2: it begins as a grid of bumps; then
    the mass of two squares (and what is left of ε²) goes into a new bump in one of them. A square covers the share p of the picture,
    p = p_init, halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 queries, which is scaled to `queries` as the paper
    says (the official AutoAttack does not, and leaves more accuracy). Every sample has squares of its own.
    The picture of a sequence [T, F] is T × F, a vector [F] one line; where a square does not fit in, it is a rectangle of its area.
    In frames [T, C, H, W] what is drawn is the same at all steps: changes that last are what moves firing rates.
    Source: Andriushchenko et al. 2020, arXiv:1912.00049, Algorithms 1 to 3 and section 4; schedule of their code.

    Raises `NoiseproofError` when a setting is out of its range.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,)).build(data.task, torch.Generator().manual_seed(0))
        >>> found = Square(eps=0.1, queries=10)(network, data.test.x, data.test.y, torch.Generator().manual_seed(0))
        >>> found.budget.gradient_evaluations
        0
    """

    # forward passes of every start, the first point included
    queries: int = 5000
    # share of the picture that the first squares cover
    p_init: float = 0.8
    # what is made large: margin of the logits, or cross-entropy
    loss: Literal["margin", "ce"] = "margin"
    # independent starts; only samples that survive one begin the next
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("queries", self.queries, 1, whole=True)
        require_number("p_init", self.p_init, 0, 1, open_low=True)
        require(self.loss in ("margin", "ce"), "loss", self.loss, "give margin or ce")
        require_number("restarts", self.restarts, 1, whole=True)

    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        found, left = x.clone(), torch.arange(len(x), device=x.device)
        for _ in range(self.restarts):
            found[left], fooled = self._walk(view, y[left], ball[left], generator)
            left = left[~fooled]
            if not len(left):
                break
        return found

    def _walk(self, view: View, y: Tensor, ball: Ball, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return where one start ends [B, …], and whether the network is fooled there [B]."""
        shape, index = ball.x.shape, torch.arange(len(y), device=y.device)
        begin, propose = (_stripes, _square) if self.norm == "linf" else (_bumps, _bump)
        z = begin(ball, stream).reshape(shape)
        found, fooled = z.clone(), torch.zeros_like(y, dtype=torch.bool)
        value, wrong = self._ask(view, z, y, loss_values(self.loss, y))
        for query in range(1, self.queries + 1):
            if bool(wrong.any()):
                found[index[wrong]], fooled[index[wrong]] = z[wrong], True
                kept = (~wrong).nonzero().squeeze(1)
                index, y, z, value = (v[kept] for v in (index, y, z, value))
                ball = ball[kept]
            if not len(y) or query == self.queries:
                break
            new = propose(z, ball, _share(self.p_init, query, self.queries), stream).reshape(z.shape)
            worth, wrong = self._ask(view, new, y, loss_values(self.loss, y))
            better = (worth > value) | wrong
            z = torch.where(better.reshape(-1, *[1] * (z.ndim - 1)), new, z)
            value = torch.where(better, worth, value)
        found[index] = z
        return found, view.fooled(found, y) if view.stochastic else fooled

    def _ask(self, view: View, z: Tensor, y: Tensor, values: Values) -> tuple[Tensor, Tensor]:
        """Return the loss, and which samples are done: those fooled, of a stochastic network none, as another draw may bring them back."""
        logits = view.logits(z)
        return values(logits), (logits.argmax(-1) != y) & (not view.stochastic)


def _share(p_init: float, query: int, queries: int) -> float:
    """Return p, the share of the picture that a square covers."""
    return p_init / 2 ** sum(query * 10_000 // queries > fall for fall in _FALLS)


def _frames(x: Tensor) -> Tensor:
    """Return inputs of any kind as [B, T, C, H, W]."""
    picture = x if x.ndim >= 3 else x[:, None]
    picture = picture if picture.ndim >= 4 else picture[:, None]
    return picture.reshape(len(x), -1, *picture.shape[-3:])


def _sides(share: float, height: int, width: int) -> tuple[int, int]:
    """Return height and width of a square with this share of the picture, or of a rectangle of its area where it does not fit in."""
    side = math.sqrt(share * height * width)
    tall = min(max(round(side), 1), height)
    wide = min(max(round(side if tall < height and side <= width else side * side / tall), 1), width)
    return (tall, wide) if wide < width else (min(max(round(side * side / wide), 1), height), wide)


def _signs(like: Tensor, shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    """Return ±1, each as often."""
    return (2 * torch.randint(2, shape, generator=stream, device=stream.device) - 1).to(like)


def _window(z: Tensor, tall: int, wide: int, stream: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return a rectangle at a random place of every sample: mask [B, 1, 1, H, W], rows [B, H] and columns [B, W] from its corner."""
    height, width = z.shape[-2:]
    top, left = (
        torch.randint(n + 1, (len(z), 1), generator=stream, device=stream.device).to(z.device) for n in (height - tall, width - wide)
    )
    rows, columns = torch.arange(height, device=z.device) - top, torch.arange(width, device=z.device) - left
    inside = ((rows >= 0) & (rows < tall))[:, :, None] & ((columns >= 0) & (columns < wide))[:, None, :]
    return inside[:, None, None], rows.clamp(0, tall - 1), columns.clamp(0, wide - 1)


def _stripes(ball: Ball, stream: torch.Generator) -> Tensor:
    """Return x ± ε, one sign a channel and column."""
    low, high = _frames(ball.low), _frames(ball.high)
    signs = _signs(low, (len(low), 1, low.shape[2], 1, low.shape[4]), stream)
    return torch.where(signs > 0, high, low)


def _square(z: Tensor, ball: Ball, share: float, stream: torch.Generator) -> Tensor:
    """Return z with one square set to x ± ε, one sign a channel: Algorithm 2."""
    z, low, high = _frames(z), _frames(ball.low), _frames(ball.high)
    inside, _, _ = _window(z, *_sides(share, *z.shape[-2:]), stream)
    signs = _signs(z, (len(z), 1, z.shape[2], 1, 1), stream)
    return torch.where(inside, torch.where(signs > 0, high, low), z)


def _hill(tall: int, wide: int) -> Tensor:
    """Return Σ_{k=d}^{n} 1/(k + 1)² at the distance d = max(|i − i₀|, |j − j₀|) from the middle, n the largest: section 4.2."""
    far = torch.maximum((torch.arange(tall) - tall // 2).abs()[:, None], (torch.arange(wide) - wide // 2).abs()[None, :])
    terms = 1 / torch.arange(1, int(far.max()) + 2, dtype=torch.float64).square()
    return terms.flip(0).cumsum(0).flip(0)[far]


def _pattern(tall: int, wide: int) -> Tensor:
    """Return two hills of opposite sign side by side, of norm 1, [tall, wide]: η of section 4.2."""
    if wide > tall:
        return _pattern(wide, tall).T
    hills = [sign * _hill(rows, wide) for sign, rows in ((1, tall // 2), (-1, tall - tall // 2)) if rows]
    both = torch.cat(hills)
    return both / both.norm()


def _on_sphere(delta: Tensor, ball: Ball) -> Tensor:
    """Return x + δ·ε/‖δ‖, inside the range of the data."""
    return ball.project(ball.x + ball.ascent(delta.reshape(ball.x.shape), ball.eps))


def _bumps(ball: Ball, stream: torch.Generator) -> Tensor:
    """Return a grid of about five by five patterns, one sign each and a channel."""
    x = _frames(ball.x)
    height, width = x.shape[-2:]
    tall, wide = max(height // 5, 1), max(width // 5, 1)
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    signs = _signs(x, (len(x), 1, x.shape[2], -(-height // tall), -(-width // wide)), stream)
    tiles = _pattern(tall, wide).to(x)[rows % tall][:, columns % wide]
    return _on_sphere((tiles * signs[..., rows // tall, :][..., columns // wide]).expand_as(x), ball)


def _bump(z: Tensor, ball: Ball, share: float, stream: torch.Generator) -> Tensor:
    """Return z with the mass of two squares, and what is left of ε², in a new pattern in the first of them: Algorithm 3."""
    x, z = _frames(ball.x), _frames(z)
    delta, across = z - x, (1, 3, 4)
    tall, wide = (_odd(side, most) for side, most in zip(_sides(share, *x.shape[-2:]), x.shape[-2:], strict=True))
    (inside, rows, columns), (other, _, _) = (_window(z, tall, wide, stream) for _ in range(2))
    unused = (ball.eps.to(z).square() - delta.flatten(1).square().sum(1)).clamp_min(0) / x.shape[2]
    mass = ((delta.square() * (inside | other)).sum(across, keepdim=True) + unused.reshape(-1, 1, 1, 1, 1)).sqrt()
    pattern = _pattern(tall, wide).to(z)
    turned = torch.stack([pattern, pattern.T if tall == wide else pattern])
    which = torch.randint(2, (len(z), 1, 1), generator=stream, device=stream.device).to(z.device)
    new = turned[which, rows[:, :, None], columns[:, None, :]][:, None, None] * _signs(z, (len(z), 1, x.shape[2], 1, 1), stream)
    old = delta * inside
    # the pattern is the same at all T steps, so its norm over all of them is 1
    new = inside * new / math.sqrt(x.shape[1]) + old / _length(old, across)
    moved = torch.where(other, 0.0, delta)
    return _on_sphere(torch.where(inside, new / _length(new, across) * mass, moved), ball)


def _length(values: Tensor, across: tuple[int, ...]) -> Tensor:
    return values.square().sum(across, keepdim=True).sqrt().clamp_min(1e-12)


def _odd(side: int, most: int) -> int:
    """Return the next odd number of at least three, as far as it fits in."""
    return min(max(side, 3) // 2 * 2 + 1, most)


attack = Square
