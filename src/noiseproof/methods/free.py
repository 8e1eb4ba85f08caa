from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks._base import check_size
from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context, Method, Round
from noiseproof.methods._carried import carried, climb, shown
from noiseproof.parameters import Params, call


@dataclass(frozen=True)
class Free(Method):
    """Free adversarial training: every batch is replayed m times, and one backward pass serves the parameters and the perturbation.

        L = CE(f(x + δ), y),   δ ← clip(δ + ε·sign(∇_x L), −ε, ε),   θ ← the optimiser's step on ∇_θ L

    δ is carried from replay to replay and from batch to batch, whatever the samples: a batch begins with the last one's. x + δ is
    clipped into the range of the network's inputs. `loss` is that of the next replay. With a recipe's penalty on rates ∇_x is that
    of the sum. An epoch costs m epochs of plain training: give 1/m of the epochs (`equal = "gradients"` in a plan does).
    Source: Shafahi et al., "Adversarial training for free!", arXiv:1904.12843, Algorithm 1 (m 8, ε 8/255).

    Raises `NoiseproofError` when a setting is out of its range, and when the network passes no gradient to its input.

    Example:
        >>> Free(replays=4).gradient_evaluations
        4
    """

    # m: updates on the same batch
    replays: int = 8
    # largest change of an input, and the size of every step, in the unit of the data
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        require_number("replays", self.replays, 1, whole=True)
        require_number("eps", self.eps, 0)

    def start(self, network: nn.Module) -> dict[str, Tensor]:
        check_size("eps", self.eps, network.bounds, ())  # pyright: ignore[reportArgumentType]  (every network of noiseproof has it)
        return {}

    @property
    def gradient_evaluations(self) -> float:
        return self.replays

    @property
    def updates(self) -> int:
        return self.replays

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        return next(self.rounds(network, lambda: params, batch, context)).loss

    def rounds(self, network: nn.Module, params: Callable[[], Params], batch: Batch, context: Context) -> Iterator[Round]:
        x, y = batch
        delta = carried(context.state, "delta", x)
        for _ in range(self.replays):
            point = shown(network, x, delta)
            yield Round(cross_entropy(call(network, params(), point), y), point.detach())
            climb(network, delta, point, self.eps, self.eps)


method = Free
