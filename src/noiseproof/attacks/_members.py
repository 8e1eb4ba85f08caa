from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.attacks._ball import Ball
from noiseproof.attacks._base import ALL_ZERO, Attack, Member, Perturbed
from noiseproof.attacks._view import Budget, View
from noiseproof.attacks.objectives import margin_values
from noiseproof.errors import NoGradientError, NoiseproofError, UnfitError
from noiseproof.parameters import Params
from noiseproof.randomness import children


@dataclass(frozen=True)
class Members(Attack):
    """An attack of several: each sample against all of them, cheapest first; one that is fooled is left alone by the rest.

    So what is left is the worst case per sample. `Perturbed.members` says how many samples each left and what it cost. A member that
    says nothing about this network (no gradient, a surrogate where there are no spikes) is left out, and says so.

    Raises `NoiseproofError` when no member at all can be used.
    """

    @abstractmethod
    def members(self, network: nn.Module) -> tuple[Attack, ...]:
        """Return the attacks in the order in which they run; each of the norm, ε and draws of the whole (see `share`)."""

    @property
    def share(self) -> dict[str, Any]:
        """The settings that every member has from the whole."""
        return {"eps": self.eps, "norm": self.norm, "eot": self.eot}

    def fits(self, network: nn.Module, x: Tensor) -> None:
        for attack in self.members(network):
            attack.fits(network, x)

    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        assert view.network is not None
        attacks = self.members(view.network)
        # a generator each: what one draws does not depend on which others there are before it
        streams = children(generator, [str(place) for place in range(len(attacks))])
        found, margins, right = x.clone(), ball.eps.new_full(y.shape, -torch.inf), torch.ones_like(y, dtype=torch.bool)
        for attack, stream in zip(attacks, streams.values(), strict=True):
            budget, skipped = Budget(), ""
            left = right.nonzero().squeeze(1)
            if len(left):
                with attack.seen(view.network, view.seed) as own:
                    own.stochastic = view.stochastic
                    try:
                        moved = attack.settle(attack.search(own, x[left], y[left], ball[left], stream), ball[left])
                        logits = own.logits(moved)
                        fooled, reached = own.fooled(moved, y[left], logits), margin_values(logits, y[left]).to(margins)
                        # what survives keeps what came nearest to fooling: of a stochastic network it may fool the next time
                        better = fooled | (reached > margins[left])
                        found[left[better]], margins[left[better]], right[left[fooled]] = moved[better], reached[better], False
                    except (NoGradientError, UnfitError) as refused:
                        skipped = str(refused)
                budget = own.spent
                skipped = skipped or (ALL_ZERO if budget.all_zero else "")
            view.charge(budget)
            view.members.append(Member(attack, right.clone(), budget, skipped))
        if all(member.skipped for member in view.members):
            raise NoiseproofError(f"no attack can be used on this network; the first said: {view.members[0].skipped}")
        return found

    def craft(self, network: nn.Module, params: Params, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        raise NoiseproofError("an attack of several members makes no single perturbation of every input: give one attack, such as pgd")

    def check_gradients(self, blocks: Sequence[Perturbed]) -> None:
        """Warn when a member was left out and the gradients of no other said anything: the figure is then that of queries alone."""
        members = [member for block in blocks for member in block.members]
        seen = any(member.budget.gradient_evaluations > member.budget.zero_gradients for member in members)
        skipped = next((member.skipped for member in members if member.skipped), "")
        if skipped and not seen:
            warnings.warn(f"no gradient says anything about this network, what is left is what queries leave: {skipped}", stacklevel=3)
