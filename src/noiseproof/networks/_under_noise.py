from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.errors import NoiseproofError
from noiseproof.noise._base import Noise
from noiseproof.parameters import Params, functional_call
from noiseproof.randomness import current_generator


class UnderNoise(nn.Module):
    """A network whose parameters are drawn anew for every pass: a chip with read noise, as an attacker meets it. Give the attack eot=k.

    `network`: one of noiseproof (outside ones through `adapt`); `noise`: a noise of `noiseproof.noise`, or any function (params,
    generator) → params.

    Raises `NoiseproofError` when it is called where no generator is at work: attacks and evaluations bring one.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,)).build(data.task, torch.Generator().manual_seed(0))
        >>> noisy = UnderNoise(network, npf.noise.Mismatch(0.1))
        >>> found = npf.attacks.PGD(eps=0.1, steps=3, eot=4)(noisy, data.test.x, data.test.y, torch.Generator().manual_seed(0))
        >>> found.success.shape
        torch.Size([20])
    """

    def __init__(self, network: nn.Module, noise: Noise | Callable[[Params, torch.Generator], Params]) -> None:
        super().__init__()
        self.network, self.noise = network, noise
        self.bounds: Any = network.bounds

    def forward(self, x: Tensor) -> Tensor:
        return self._drawn(lambda params: functional_call(self.network, params, (x,)))

    def run(self, x: Tensor, *, params: Params | None = None, **options: Any) -> Any:
        """Return what `run` of the network gives on one chip; `params`: other nominal parameters."""
        if params is not None:
            return functional_call(_Running(self, options), {f"under.{name}": p for name, p in params.items()}, (x,))
        return self._drawn(lambda drawn: self.network.run(x, params=drawn, **options))  # pyright: ignore[reportCallIssue]

    def _drawn(self, call: Callable[[Params], Any]) -> Any:
        stream = current_generator()
        if stream is None:
            raise NoiseproofError("generator is None: every pass draws a chip; call the network inside noiseproof.randomness.stochastic")
        params: Params = {name: p for name, p in self.network.named_parameters() if p.is_floating_point()}
        drawn = self.noise(params, stream)
        if not isinstance(self.noise, Noise) or not self.noise.converts:
            return call(drawn)
        with self.noise.converters(drawn):
            return call(drawn)


class _Running(nn.Module):
    """`run` of a network as a call, so that it can be made at other parameters."""

    def __init__(self, under: UnderNoise, options: dict[str, Any]) -> None:
        super().__init__()
        self.under, self.options = under, options

    def forward(self, x: Tensor) -> Any:
        return self.under.run(x, **self.options)
