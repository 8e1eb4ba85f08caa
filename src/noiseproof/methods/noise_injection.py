from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.errors import require
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.noise import Noise
from noiseproof.parameters import Params, call


@dataclass(frozen=True)
class NoiseInjection(Method):
    """Training on any noise that noiseproof can spell: L = CE(f(x; n(θ)), y), a new chip for every batch, ∂n(θ)/∂θ = 1.

    What the noise's hardware converts, it converts in training too. The loss goes straight through rounding.
    Source: Joshi et al. 2020 (training with the noise of the device); Bengio et al. 2013 (straight through).

    Raises `NoiseproofError` when `noise` spells no noise, or several.

    Example:
        >>> NoiseInjection(noise="gaussian(std=0.01) > mismatch(zeta=0.1)").made.describe()["name"]
        'gaussian > mismatch'
    """

    # the noise, spelled as for --noise of evaluate; steps in order: "gaussian(std=0.01) > mismatch(zeta=0.1)"
    noise: str = "mismatch(zeta=0.3)"

    def __post_init__(self) -> None:
        self.made  # noqa: B018 (checks the spelling)

    @property
    def made(self) -> Noise:
        """The noise itself."""
        from noiseproof.config import spelled_noises  # it imports the methods

        found = spelled_noises(self.noise, "noise")
        require(len(found) == 1, "noise", self.noise, "give one value a setting: a training cannot sweep")
        return found[0]

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        chip = self.made(params, context.generator)
        with self.made.converters(chip):
            return cross_entropy(call(network, chip, x), y)


method = NoiseInjection
