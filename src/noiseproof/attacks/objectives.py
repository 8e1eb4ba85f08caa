"""What an adversary makes large: KL divergence (needs no labels), cross-entropy, and the difference of logits ratio."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.errors import NoiseproofError, UnfitError
from noiseproof.parameters import Call, Params, call_inference

Batch = tuple[Tensor, Tensor | None]


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p ‖ q) = Σ_c p_c·(log p_c − log q_c), mean over the batch, from log-probabilities [B, C], in nats.

    Both come from `log_softmax`: the logarithm of a softmax is −∞ once a probability underflows.
    Source: Büchel et al., arXiv:2106.05009, eq. (2).
    """
    return kl_values(log_p, log_q).mean()


def kl_values(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p ‖ q) of every sample, [B]."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)  # A eq. (2)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the mean over the batch of `dlr_values`."""
    return dlr_values(logits, y).mean()


def dlr_values(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio of every sample [B], −(z_y − max_{i≠y} z_i)/(z_(1) − z_(3)); positive where wrong.

    Source: Croce and Hein 2020, arXiv:2003.01690, eq. (6). Raises `UnfitError` with fewer than three classes.
    """
    if logits.shape[-1] < 3:
        raise UnfitError(f"objective is 'dlr' with {logits.shape[-1]} classes: it needs three or more; use 'ce'")
    top = logits.topk(3, dim=-1).values
    return margin_values(logits, y) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


def dlr_targeted_values(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return −(z_y − z_t)/(z_(1) − (z_(3) + z_(4))/2) of every sample [B]: towards the classes `target` [B].

    Source: Croce and Hein 2020, arXiv:2003.01690, eq. (7). Raises `UnfitError` with fewer than four classes.
    """
    if logits.shape[-1] < 4:
        raise UnfitError(f"objective is targeted 'dlr' with {logits.shape[-1]} classes: it needs four or more; use 'ce'")
    top = logits.topk(4, dim=-1).values
    right, wanted = (logits.gather(-1, c[:, None]).squeeze(-1) for c in (y, target))
    return (wanted - right) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3])).clamp_min(1e-12)


def margin_values(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{i≠y} z_i − z_y of every sample [B], positive where wrong: the loss of Carlini and Wagner, arXiv:1608.04644."""
    right = logits.gather(-1, y[:, None]).squeeze(-1)
    others = logits.scatter(-1, y[:, None], -torch.inf)
    return others.amax(-1) - right


def objective_value(kind: str, logits: Tensor, reference: Tensor | None, y: Tensor | None) -> Tensor:
    """Return the objective `kind` ("kl", "ce" or "dlr"); `reference` is log p(θ) for KL, `y` the labels for the other two."""
    if kind == "kl":
        assert reference is not None
        return kl_divergence(reference, logits.log_softmax(-1))
    if y is None:
        raise NoiseproofError(f"objective is {kind!r} without labels: give y, or use 'kl', which needs none")
    return cross_entropy(logits, y) if kind == "ce" else dlr(logits, y)


@torch.no_grad()
def reference_of(kind: str, network: nn.Module, params: Params, x: Tensor) -> Tensor | None:
    """Return log p(θ) [B, C] in inference, which the KL is taken from; None for an objective that needs none."""
    return call_inference(network, params, x).log_softmax(-1) if kind == "kl" else None


def mean_gradient(
    kind: str,
    network: nn.Module,
    params: Params,
    names: Sequence[str],
    batches: Sequence[Batch],
    references: Sequence[Tensor | None],
    call: Call = call_inference,
) -> Params:
    """Return the gradient of the objective, the mean over all samples, for the parameters `names` at `params`; in inference by default."""
    leaves = {name: params[name].detach().requires_grad_() for name in names}
    total = sum(len(x) for x, _ in batches)
    sums = [torch.zeros_like(leaf) for leaf in leaves.values()]
    with torch.enable_grad():
        for (x, y), reference in zip(batches, references, strict=True):
            value = objective_value(kind, call(network, params | leaves, x), reference, y)
            gradients = torch.autograd.grad(value * (len(x) / total), list(leaves.values()), allow_unused=True)
            sums = [s if g is None else s.add_(g) for s, g in zip(sums, gradients, strict=True)]
    return dict(zip(names, sums, strict=True))


@torch.no_grad()
def mean_value(
    kind: str,
    network: nn.Module,
    params: Params,
    batches: Sequence[Batch],
    references: Sequence[Tensor | None],
    call: Call = call_inference,
) -> float:
    """Return the objective at `params`, the mean over all samples; in inference by default."""
    total = sum(len(x) for x, _ in batches)
    values = [
        float(objective_value(kind, call(network, params, x), reference, y)) * len(x)
        for (x, y), reference in zip(batches, references, strict=True)
    ]
    return sum(values) / total
