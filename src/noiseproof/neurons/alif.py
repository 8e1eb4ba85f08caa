from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from noiseproof.errors import require_number
from noiseproof.neurons.equation import Constants, Form
from noiseproof.neurons.neuron import SMALLEST_THRESHOLD, Neuron, Per, _Spread, check_threshold, leak_of, within
from noiseproof.neurons.surrogates import Surrogate, Triangle


class ALIF(Neuron):
    """LIF neurons whose threshold rises with every spike and comes back slowly.

        h = ρ·h + (1 − ρ)·I − s·B,   b = ρ_b·b + (1 − ρ_b)·s,   B = b0 + β·b,   s = H(h − B), none for `refractory` steps after one

    ρ = exp(−1/τ), ρ_b = exp(−1/τ_ada), time in steps. Parameters: `tau`, `tau_adaptation`, `beta`, `threshold` (b0).
    Defaults and surrogate as in Büchel et al., arXiv:2106.05009, eqs. (3)–(4) and their public code (the text gives no β): one dead
    step, dampening 0.3, and z = (h − B)/B with the 1/B that the printed eq. (4) leaves out. After Bellec et al. 2018.

    Raises `NoiseproofError` for a time constant or threshold that is not positive, negative β or dead steps.

    Example:
        >>> import torch
        >>> layer = ALIF()
        >>> layer(torch.full((6, 1, 1), 0.5)).spikes.flatten().tolist()
        [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    """

    tau: Tensor
    tau_adaptation: Tensor
    beta: Tensor
    threshold: Tensor

    def __init__(
        self,
        *,
        tau: float = 20.0,
        tau_adaptation: float = 98.0,
        beta: float = 2.0,
        threshold: float = 0.01,
        refractory: int = 1,
        detach_reset: bool = False,
        surrogate: Surrogate | None = None,
        trainable: Sequence[str] = (),
        per: Per = "layer",
        shape: Sequence[int] = (),
    ) -> None:
        form = Form("soft-next", True, refractory, detach_reset, surrogate or Triangle(0.3))
        super().__init__(form, trainable=trainable, per=per, shape=shape)
        check_threshold(threshold)
        require_number("tau", tau, 0, open_low=True)
        require_number("tau_adaptation", tau_adaptation, 0, open_low=True)
        require_number("beta", beta, 0)
        for name, value in (("tau", tau), ("tau_adaptation", tau_adaptation), ("beta", beta), ("threshold", threshold)):
            self._add(name, value)
        self._complete()

    def constants(self, steps: int, spread: _Spread) -> Constants:
        leak, rho = spread(leak_of(self.tau, "exponential")), spread(leak_of(self.tau_adaptation, "exponential"))
        # noise may not turn the adaptation round: a threshold that falls with every spike
        beta, theta = within(spread(self.beta), 0.0), within(spread(self.threshold), SMALLEST_THRESHOLD)
        return Constants(leak, theta, 1 - leak, beta, rho)
