from __future__ import annotations

import contextlib
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof._names import name_of
from noiseproof.attacks._ball import Ball, Norm
from noiseproof.attacks._view import Budget, Values, View, viewed
from noiseproof.attacks.objectives import dlr_values, kl_values, margin_values
from noiseproof.errors import NoGradientError, NoiseproofError, require, require_number
from noiseproof.networks import adapt
from noiseproof.neurons.rate_rules import RateRule
from noiseproof.neurons.surrogates import Surrogate
from noiseproof.neurons.surrogates import surrogate as surrogate_named
from noiseproof.observing import unobserved
from noiseproof.parameters import Params, call_aside
from noiseproof.randomness import globally_seeded

ALL_ZERO = (
    "the gradient to the input is zero for every sample: an attack by gradients says nothing about this network, which is not "
    "the same as robust; give another surrogate, or attack it by queries (square) or from another network (transfer)"
)


@dataclass(frozen=True, eq=False)
class Member:
    """What one attack of several did: which samples are still right after it, and what it asked of the network.

    `right` [n]: of the n samples that were right from the start. What a stochastic network gives right when it is asked once more,
    at the very end, was right all along, so that no member leaves fewer samples than the whole.
    `skipped`: why it says nothing about this network, empty where it does. It is then left out, which is not the same as robust.
    """

    attack: Attack
    right: Tensor
    budget: Budget
    skipped: str = ""

    @property
    def surviving(self) -> int:
        """How many samples are still right after it."""
        return int(self.right.sum())


@dataclass(frozen=True, eq=False)
class Perturbed:
    """What an attack found: inputs `x` [B, …] within ε of those given and inside their range, and what it asked of the network.

    `success` [B]: the network, asked once more about exactly these inputs, does not give the right class (without labels: gives another
    one than for the inputs as they were). Samples that were wrong from the start count as successes and stay as they are.
    `before`, `after` [B]: the classes that it gave for the inputs as they were, and for `x`, those from which `success` follows.
    """

    x: Tensor
    success: Tensor
    budget: Budget
    before: Tensor
    after: Tensor
    # of an attack of several: what each did, in the order in which they ran
    members: tuple[Member, ...] = ()

    @property
    def accuracy(self) -> float:
        """The share of samples that are still right."""
        return 1 - float(self.success.double().mean())


@dataclass(frozen=True)
class Attack(ABC):
    """What an adversary does to inputs: `attack(network, x, y, generator)` → `Perturbed`. A kind of attack is a dataclass with one search.

    The network is seen in inference, at its own weights; nothing of it changes, nor do the inputs given.

    Raises `NoiseproofError` when a setting is out of its range or does not fit the data.
    """

    # largest change of an input, in the unit of the data
    eps: float = 8 / 255
    # linf: every entry changes by at most eps; l2: the norm of the change of a sample is at most eps
    norm: Norm = "linf"
    # draws of a stochastic network averaged for every gradient and prediction (expectation over transformation)
    eot: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        require_number("eps", self.eps, 0)
        require(self.norm in ("linf", "l2"), "norm", self.norm, "give linf or l2")
        require_number("eot", self.eot, 1, whole=True)

    @abstractmethod
    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """Return the perturbed inputs of all samples, inside `ball`; `y` [B] are classes that the network must not give."""

    def settle(self, found: Tensor, ball: Ball) -> Tensor:
        """Return what was found, inside the ball to the last digit."""
        return ball.settle(found)

    @property
    def needs_labels(self) -> bool:
        """Whether the search needs to know the right classes."""
        return True

    def __call__(
        self, network: nn.Module, x: Tensor, y: Tensor | None, generator: torch.Generator, *, eps: float | Tensor | None = None
    ) -> Perturbed:
        """Return perturbed inputs for x [B, …] with classes y [B] (None: away from the network's own predictions).

        `eps`: other radii than the attack's own, one for all samples or one each, [B]. `generator` makes all randomness.

        Raises `NoiseproofError` when ε, inputs or labels do not fit, or the network passes no gradient to its input.
        """
        found = self.on_block(network, x, y, generator, eps=eps)
        self.check_gradients([found])
        return found

    def on_block(
        self, network: nn.Module, x: Tensor, y: Tensor | None, generator: torch.Generator, *, eps: float | Tensor | None = None
    ) -> Perturbed:
        """Do what a call does, but leave it to the caller, who has more blocks, whether all gradients are zero (`check_gradients`)."""
        network = adapt(network)
        radii = self._radii(network, x, y, eps)
        self.fits(network, x)
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        with globally_seeded(seed, x.device), self.seen(network, seed) as view:
            view.stochastic = view.is_stochastic(x)
            self._warn_of_chance(view)
            logits = view.logits(x)
            before = logits.argmax(-1)
            classes = before if y is None else y
            if len(classes) and not bool(((classes >= 0) & (classes < logits.shape[-1])).all()):
                least, most = (int(c) for c in classes.aminmax())
                raise NoiseproofError(f"y has classes from {least} to {most}: the network has 0 to {logits.shape[-1] - 1}")
            moved, after = x.detach().clone(), before.clone()
            left = (before == classes).nonzero().squeeze(1)
            if len(left):
                ball = Ball(x[left], radii[left], self.norm, view.bounds)
                found = self.settle(self.search(view, x[left], classes[left], ball, generator), ball)
                if not bool(found.isfinite().all()):
                    raise NoiseproofError("the search ended at inputs that are not finite, which fool nobody: look for NaN in the network")
                moved[left], after[left] = found, view.predictions(found)
        success = after != classes
        members = tuple(replace(member, right=member.right | ~success[left]) for member in view.members)
        return Perturbed(moved, success, view.spent, before, after, members)

    def check(self, network: nn.Module, x: Tensor) -> None:
        """Raise `NoiseproofError` when ε, the inputs x [B, …] or the network do not fit this attack; without any search."""
        self._radii(network, x, x.new_zeros(len(x), dtype=torch.int64) if self.needs_labels else None, None)
        self.fits(network, x)

    def fits(self, network: nn.Module, x: Tensor) -> None:  # noqa: B027  (most fit every network)
        """Raise `NoiseproofError`, before any long work, when this attack cannot be meant for this network and these inputs."""

    def _warn_of_chance(self, view: View) -> None:
        if self.eot == 1 and view.stochastic:
            warnings.warn(
                "the network is stochastic (Poisson coding, dropout, noise that is drawn anew) and eot is 1: every gradient is that of "
                "one draw, and accuracy looks better than it is; give eot=10 or more",
                stacklevel=4,
            )

    def check_gradients(self, blocks: Sequence[Perturbed]) -> None:
        """Raise `NoiseproofError` when gradients were asked for and none said anything: such an attack says nothing of the network."""
        if sum((block.budget for block in blocks), Budget()).all_zero:
            raise NoGradientError(ALL_ZERO)

    def craft(self, network: nn.Module, params: Params, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return perturbed inputs for training: the network at `params` in its present mode, every sample searched to the end.

        The passes are made aside: buffers stay, and no penalty counts them.
        """
        fixed = {name: p.detach() for name, p in params.items()}
        bounds: tuple[float, float] = network.bounds  # pyright: ignore[reportAssignmentType] (every network of noiseproof has it)
        check_size("eps", self.eps, bounds, x.shape[1:], self.norm)
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        view = View(lambda z: self._aside(network, fixed, z), bounds, eot=self.eot, seed=seed)
        ball = Ball(x, x.new_full((len(x),), self.eps, dtype=torch.float64), self.norm, bounds)
        return self.search(view, x, y, ball, generator)

    def _aside(self, network: nn.Module, params: Params, x: Tensor) -> Tensor:
        return call_aside(network, params, x)

    @contextlib.contextmanager
    def seen(self, network: nn.Module, seed: int) -> Iterator[View]:
        """Open the network to the attacker."""
        with viewed(network, eot=self.eot, seed=seed) as view:
            yield view

    def at(self, eps: float) -> Attack:
        """Return the same attack with another ε."""
        return replace(self, eps=eps)

    def describe(self) -> dict[str, Any]:
        """Return name and settings, as they stand in every record."""
        return {"name": name_of("attacks", type(self)), **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}

    def _radii(self, network: nn.Module, x: Tensor, y: Tensor | None, eps: float | Tensor | None) -> Tensor:
        """Return ε of every sample, [B] in float64, once all that is given has been found to fit."""
        low, high = (float(b) for b in network.bounds)  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]
        if x.numel():
            least, most = (float(v) for v in x.aminmax())
            # NaN fails this too
            if not (least >= low - 1e-6 * (high - low) and most <= high + 1e-6 * (high - low)):
                raise NoiseproofError(
                    f"x runs from {least:g} to {most:g} and the network's bounds are {low:g} to {high:g}: give inputs in the data's own "
                    "unit (normalisation belongs into the network), or adapt it with the bounds of the data"
                )
        radii = torch.as_tensor(self.eps if eps is None else eps, dtype=torch.float64, device=x.device)
        require(radii.ndim == 0 or radii.shape == (len(x),), "eps", tuple(radii.shape), f"give one number, or one a sample, [{len(x)}]")
        radii = radii.expand(len(x))
        if len(radii):
            least, most = (float(r) for r in radii.aminmax())
            check_size("eps", most if least >= 0 else least, (low, high), x.shape[1:], self.norm)
        if y is None:
            require(not self.needs_labels, "y", None, "this attack needs the right classes; give labels, or an attack without (loss kl)")
        else:
            require(self.needs_labels, "y", "labels", "this attack takes none, it leads away from the network's predictions; give y=None")
            whole = isinstance(y, Tensor) and not (y.is_floating_point() or y.is_complex())
            require(whole, "y", getattr(y, "dtype", type(y).__name__), "give classes as a tensor of whole numbers")
            require(y.shape == (len(x),), "y", tuple(y.shape), f"give one class a sample, [{len(x)}]")
        return radii


@dataclass(frozen=True)
class GradientAttack(Attack):
    """An attack that climbs a loss by its gradient to the input; through spikes by a surrogate gradient of the attacker's choice."""

    # what is made large: cross-entropy, difference of logits ratio, margin of the logits, or KL from the clean output (without labels)
    loss: Literal["ce", "dlr", "margin", "kl"] = field(default="ce", kw_only=True)
    # surrogate of the attacker: triangle, atan, sigmoid, fast-sigmoid, rectangle; empty: the one of the training
    surrogate: str = field(default="", kw_only=True)
    # its settings, in the order of its fields
    surrogate_settings: tuple[float, ...] = field(default=(), kw_only=True)
    # a sample that is fooled is left alone from then on; in a stochastic network never, as another draw may bring it back
    survivors_only: bool = field(default=True, kw_only=True)
    # gradients at the expected input in place of Poisson spikes, for networks of that coding; spikes decide whether it is fooled
    expected: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.loss in ("ce", "dlr", "margin", "kl"), "loss", self.loss, "give ce, dlr, margin or kl")
        _ = self.attackers_surrogate

    @property
    def needs_labels(self) -> bool:
        return self.loss != "kl"

    @property
    def attackers_surrogate(self) -> Surrogate | RateRule | None:
        """The surrogate that stands for the derivative of a spike; None: the network's own."""
        require(bool(self.surrogate) or not self.surrogate_settings, "surrogate_settings", self.surrogate_settings, "give a surrogate too")
        return surrogate_named(self.surrogate, *self.surrogate_settings) if self.surrogate else None

    def leaves(self, view: View) -> bool:
        """Whether fooled samples are left alone."""
        return self.survivors_only and not view.stochastic

    @contextlib.contextmanager
    def seen(self, network: nn.Module, seed: int) -> Iterator[View]:
        with viewed(network, surrogate=self.attackers_surrogate, expected=self.expected, eot=self.eot, seed=seed) as view:
            yield view

    def craft(self, network: nn.Module, params: Params, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        return super(GradientAttack, replace(self, survivors_only=False)).craft(network, params, x, y, generator)

    def _refuse_kl(self, reason: str) -> None:
        require(self.loss != "kl", "loss", self.loss, reason)

    def _aside(self, network: nn.Module, params: Params, x: Tensor) -> Tensor:
        if self.attackers_surrogate is None and not self.expected:
            return call_aside(network, params, x)
        options = {"surrogate": self.attackers_surrogate} | ({"expected": True} if self.expected else {})
        buffers = {name: b.clone() for name, b in network.named_buffers()}
        with unobserved():
            return network.run(x, params={**params, **buffers}, **options).logits  # pyright: ignore[reportCallIssue]

    def reference(self, view: View, x: Tensor, y: Tensor) -> Tensor:
        """Return what the loss leads away from: classes [B], for "kl" the log-probabilities [B, C] at the inputs `x` as they were."""
        return view.logits(x).log_softmax(-1) if self.loss == "kl" else y

    def values(self, reference: Tensor) -> Values:
        """Return what is climbed, a function of logits [B, C] → [B]."""
        if self.loss == "kl":
            return lambda logits: kl_values(reference, logits.log_softmax(-1))
        return loss_values(self.loss, reference)


def loss_values(loss: str, y: Tensor) -> Values:
    """Return the loss of a name as a function of logits [B, C] → [B]: "ce", "dlr" or "margin"."""
    if loss == "ce":
        return lambda logits: cross_entropy(logits, y, reduction="none")
    return lambda logits: (dlr_values if loss == "dlr" else margin_values)(logits, y)


def check_size(field: str, eps: float, bounds: tuple[float, float], shape: Sequence[int], norm: Norm = "linf") -> None:
    """Raise `NoiseproofError` unless inputs of this shape and range can change by `eps`; it names the range."""
    low, high = (float(b) for b in bounds)
    most = (high - low) * (math.sqrt(math.prod(shape)) if norm == "l2" else 1.0)
    if not 0 <= eps <= most:
        raise NoiseproofError(f"{field} is {eps:g}: the data runs from {low:g} to {high:g}, so give one between 0 and {most:g} ({norm})")
