from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

KINDS = ("current", "membrane", "spikes")


@dataclass(frozen=True)
class Run:
    """What one run of a network gives: logits [B, classes], the final state by layer, and the traces that were asked for.

    `traces[kind][layer]` is [T, B, …] for the kinds "current" (what comes into the layer, before its gain and recurrence),
    "membrane" (potential before the reset) and "spikes". `state` can be given to the next `run`: its neurons go on where these
    stopped, and its logits are those of its own steps.
    """

    logits: Tensor
    state: dict[str, Any] = field(default_factory=dict)
    traces: dict[str, dict[str, Tensor]] = field(default_factory=dict)
