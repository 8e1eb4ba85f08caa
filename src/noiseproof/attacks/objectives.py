"""What an adversary makes large: KL divergence (needs no labels), cross-entropy, and the difference of logits ratio."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from noiseproof.errors import NoiseproofError


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p ‖ q) = Σ_c p_c·(log p_c − log q_c), mean over the batch, from log-probabilities [B, C], in nats.

    Both come from `log_softmax`: the logarithm of a softmax is −∞ once a probability underflows.
    Source: Büchel et al., arXiv:2106.05009, eq. (2).
    """
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()  # A eq. (2)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio, −(z_y − max_{i≠y} z_i)/(z_(1) − z_(3)), mean over the batch; positive where wrong.

    Source: Croce and Hein 2020, arXiv:2003.01690, eq. (6). Raises `NoiseproofError` with fewer than three classes.
    """
    if logits.shape[-1] < 3:
        raise NoiseproofError(f"objective is 'dlr' with {logits.shape[-1]} classes: it needs three or more; use 'ce'")
    top = logits.topk(3, dim=-1).values
    right = logits.gather(-1, y[:, None]).squeeze(-1)
    is_right = one_hot(y, logits.shape[-1]).bool()
    wrong = logits.masked_fill(is_right, -torch.inf).amax(-1)
    return ((wrong - right) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)).mean()


def objective_value(kind: str, logits: Tensor, reference: Tensor | None, y: Tensor | None) -> Tensor:
    """Return the objective `kind` ("kl", "ce" or "dlr"); `reference` is log p(θ) for KL, `y` the labels for the other two."""
    if kind == "kl":
        assert reference is not None
        return kl_divergence(reference, logits.log_softmax(-1))
    if y is None:
        raise NoiseproofError(f"objective is {kind!r} without labels: give y, or use 'kl', which needs none")
    return cross_entropy(logits, y) if kind == "ce" else dlr(logits, y)
