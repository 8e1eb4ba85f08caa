from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.neurons.equation import Constants
from noiseproof.neurons.lif import LIF
from noiseproof.neurons.neuron import _Spread


class DLIF(LIF):
    """LIF neurons with one more parameter a[t] a step: on the leak, h[t] = a[t]·λ·v[t−1] + I[t], or on the input, a[t]·I[t].

    Source: Ding et al., ICML 2024, section 4: the text has a[t] on the leak, on which its argument rests; its public code has it
    on the input, and the two are not equivalent. Defaults as there: λ 0.99, hard reset, a[t] 1 at the start and trained.
    `steps`: T, the number of a[t]; other settings as in `LIF`.

    Raises `NoiseproofError` as `LIF` does, for `on` that is neither, and when run for another number of steps.

    Example:
        >>> import torch
        >>> layer = DLIF(steps=4)
        >>> layer.a.shape, layer(torch.rand(4, 2, 3)).spikes.shape
        (torch.Size([4]), torch.Size([4, 2, 3]))
    """

    def __init__(self, *, steps: int, on: Literal["leak", "input"] = "leak", trainable: Any = ("a",), **settings: Any) -> None:
        leak = {} if "tau" in settings else {"leak": 0.99}
        super().__init__(**{**leak, "reset": "hard", **settings}, trainable=[name for name in trainable if name != "a"])
        require(on in ("leak", "input"), "on", on, "give leak or input")
        require_number("steps", steps, 1, whole=True)
        self.on = on
        self.a = nn.Parameter(torch.ones(steps), requires_grad="a" in trainable)

    def constants(self, steps: int, spread: _Spread) -> Constants:
        if steps != len(self.a):
            raise NoiseproofError(f"steps is {steps}: these neurons have a[t] for {len(self.a)} steps, and run for no other number")
        constants = super().constants(steps, spread)
        a = spread.in_time(self.a)
        if self.on == "leak":
            return constants._replace(leak=a * constants.leak)
        return constants._replace(gain=a if constants.gain is None else a * constants.gain)
