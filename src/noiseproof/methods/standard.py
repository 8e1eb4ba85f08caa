from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.methods._base import Batch, Context, Method
from noiseproof.parameters import Params, call


@dataclass(frozen=True)
class Standard(Method):
    """Plain training: L = CE(f(x; θ), y). The baseline of every comparison."""

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        return cross_entropy(call(network, params, x), y)


method = Standard
