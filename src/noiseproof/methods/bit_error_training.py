from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.noise._base import straight_through
from noiseproof.noise.bit_errors import BitErrors, flipped_bits
from noiseproof.parameters import Params, call, call_aside, select
from noiseproof.randomness import children


@dataclass(frozen=True)
class BitErrorTraining(Method):
    """Random bit error training (RandBET): L = ½·CE(f(x; Q(θ)), y) + ½·CE(f(x; BErr_p(Q(θ))), y), the weights clipped to ± w_max.

    Q is the paper's robust quantisation (asymmetric, unsigned, nearest, a range a tensor), BErr_p flips every stored bit with
    probability p, anew for every batch. The gradient goes straight through both. Batch norm's statistics follow the pass without errors.
    Source: Stutz, Chandramoorthy, Hein, Schiele, MLSys 2021, arXiv:2006.13977, Algorithm 1 (published for CIFAR-10: p 0.01, 8 bits,
    w_max 0.1; its errors begin once the loss is below 1.75, ours with the first step).

    Raises `NoiseproofError` when a setting is out of its range or `parameters` selects nothing.

    Example:
        >>> BitErrorTraining(p=0.05, bits=4).noise.describe()["encoding"]
        'unsigned'
    """

    # probability that a stored bit is flipped
    p: float = 0.01
    # bits a weight, 1 to 16
    bits: int = 8
    # largest magnitude that a weight keeps after a step; 0: weights are not clipped
    w_max: float = 0.1
    # weights | all | patterns of names
    parameters: str = "weights"

    def __post_init__(self) -> None:
        require_number("w_max", self.w_max, 0)
        _ = self.noise  # it checks the other settings

    @property
    def noise(self) -> BitErrors:
        """The hardware that is trained for."""
        return BitErrors(p=self.p, bits=self.bits, range="asymmetric", encoding="unsigned", parameters=self.parameters)

    @property
    def gradient_evaluations(self) -> float:
        return 2

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        stored, damaged = self.stored(params, context.generator)
        without, with_errors = call(network, stored, x), call_aside(network, damaged, x)
        return (cross_entropy(without, y) + cross_entropy(with_errors, y)) / 2

    def stored(self, params: Params, generator: torch.Generator) -> tuple[Params, Params]:
        """Return the parameters as they are stored, and the chip that `noise` makes of them: quantised once for both."""
        noise = self.noise
        chosen = select(params, self.parameters)
        without, with_errors = dict(params), dict(params)
        for name, stream in children(generator, list(chosen)).items():
            theta = chosen[name]
            codes, stored = noise.grid.encode(theta.detach(), stream)
            mask = flipped_bits(codes.shape, self.bits, self.p, stream).to(codes.device)
            without[name] = straight_through(theta, stored.decode(codes, theta))
            with_errors[name] = straight_through(theta, stored.decode(stored.flip(codes, mask, noise.encoding), theta))
        return without, with_errors

    @torch.no_grad()
    def after_step(self, params: Params) -> None:
        if self.w_max:
            for theta in select(params, self.parameters).values():
                theta.clamp_(-self.w_max, self.w_max)


method = BitErrorTraining
