from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.neurons.equation import Constants, Emitted, Form, Reset, State
from noiseproof.neurons.neuron import SMALLEST_THRESHOLD, Neuron, Per, _Spread, check_threshold, leak_of, within
from noiseproof.neurons.surrogates import Surrogate, Triangle


class LIF(Neuron):
    """Leaky integrate-and-fire neurons: h[t] = λ·v[t−1] + g·I[t], s[t] = H(h[t] − θ), then the reset.

    `reset`: "hard" v = h·(1 − s), "soft" v = h − θ·s, or "soft-next", the subtraction un-leaked at the next step,
    h[t] = λ·h[t−1] + I[t] − θ·s[t−1]. The leak is given as `leak` λ in (0, 1], or by a time constant `tau` in steps: then τ is
    the parameter, and λ = 1 − 1/τ (`decay="euler"`) or exp(−1/τ) ("exponential"). With `decay_input` g = 1 − λ, else 1.
    Potentials are counted from `v_reset`: it is where a hard reset ends, what the membrane leaks to, and what the surrogate's
    distance is scaled by, z = (v − θ)/(θ − v_reset).
    Source: Kundu et al., ICCV 2021, eqs. (1)–(2) ("soft-next"); Ding et al., ICML 2024, eqs. (1)–(3) ("hard").

    Raises `NoiseproofError` for leak and tau together or neither, leak outside (0, 1], tau below 1 step (euler) or not
    positive, a threshold that is not above `v_reset`, negative dead steps.

    Example:
        >>> import torch
        >>> layer = LIF(leak=0.9, threshold=1.0, trainable=("threshold", "leak"))
        >>> layer(torch.ones(4, 2, 3)).spikes[:, 0, 0].tolist()
        [0.0, 1.0, 1.0, 1.0]
    """

    threshold: Tensor
    leak: Tensor
    tau: Tensor

    def __init__(
        self,
        *,
        leak: float | None = None,
        tau: float | None = None,
        threshold: float = 1.0,
        v_reset: float = 0.0,
        reset: Reset = "soft",
        decay_input: bool = False,
        decay: Literal["exponential", "euler"] = "euler",
        refractory: int = 0,
        detach_reset: bool = False,
        surrogate: Surrogate | None = None,
        trainable: Sequence[str] = (),
        per: Per = "layer",
        shape: Sequence[int] = (),
    ) -> None:
        form = Form(reset, refractory=refractory, detach_reset=detach_reset, surrogate=surrogate or Triangle())
        super().__init__(form, trainable=trainable, per=per, shape=shape)
        if (leak is None) == (tau is None):
            raise NoiseproofError(f"leak is {leak} and tau is {tau}: give one of them")
        require(decay in ("exponential", "euler"), "decay", decay, "give exponential or euler")
        check_threshold(threshold - v_reset)
        self.decay: Literal["exponential", "euler"] = decay
        self.decay_input, self.v_reset = decay_input, v_reset
        self._add("threshold", threshold)
        if leak is not None:
            require_number("leak", leak, 0, 1, open_low=True)
            self._add("leak", leak)
        elif tau is not None:
            require_number("tau", tau, 1 if decay == "euler" else 0, open_low=decay == "exponential")
            self._add("tau", tau)
        self._complete()

    def decayed(self) -> Tensor:
        """Return λ, [] or one number a channel or neuron."""
        return leak_of(self.tau, self.decay) if hasattr(self, "tau") else within(self.leak, 0.0, 1.0)

    def constants(self, steps: int, spread: _Spread) -> Constants:
        leak = spread(self.decayed())
        theta = within(spread(self.threshold) - self.v_reset, SMALLEST_THRESHOLD)
        return Constants(leak, theta, 1 - leak if self.decay_input else None)

    def forward(self, current: Tensor, *, state: State | None = None, **options: object) -> Emitted:
        if not self.v_reset:
            return super().forward(current, state=state, **options)  # pyright: ignore[reportArgumentType]
        shifted = None if state is None else state._replace(v=state.v - self.v_reset)
        out = super().forward(current, state=shifted, **options)  # pyright: ignore[reportArgumentType]
        membrane = None if out.membrane is None else out.membrane + self.v_reset
        return Emitted(out.spikes, out.state._replace(v=out.state.v + self.v_reset), membrane)


class IF(LIF):
    """Integrate-and-fire neurons without leak: h[t] = v[t−1] + I[t]. Nothing of the leak is a parameter: it is not there.

    Raises `NoiseproofError` as `LIF` does.

    Example:
        >>> import torch
        >>> IF(threshold=1.5)(torch.ones(4, 1, 1)).spikes.flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        *,
        threshold: float = 1.0,
        v_reset: float = 0.0,
        reset: Reset = "soft",
        refractory: int = 0,
        detach_reset: bool = False,
        surrogate: Surrogate | None = None,
        trainable: Sequence[str] = (),
        per: Per = "layer",
        shape: Sequence[int] = (),
    ) -> None:
        super().__init__(
            leak=1.0, threshold=threshold, v_reset=v_reset, reset=reset, refractory=refractory, detach_reset=detach_reset,
            surrogate=surrogate, trainable=[name for name in trainable if name != "leak"], per=per, shape=shape,
        )  # fmt: skip
        require("leak" not in trainable, "trainable", "leak", "IF neurons have no leak; take LIF")
        del self.leak

    def decayed(self) -> Tensor:
        return self.threshold.new_ones(self.threshold.shape)
