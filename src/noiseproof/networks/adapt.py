from __future__ import annotations

import torch
from torch import Tensor, nn

from noiseproof.errors import NoiseproofError, require
from noiseproof.networks._base import Network
from noiseproof.parameters import call_inference, parameters_of


class Adapted(nn.Module):
    """An outside module behind the interface of ours: x [B, …] → logits [B, C], checked at every call."""

    def __init__(self, module: nn.Module, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.module, self.bounds = module, bounds

    def forward(self, x: Tensor) -> Tensor:
        logits = self.module(x)
        if not isinstance(logits, Tensor):
            raise NoiseproofError(f"the network returns {type(logits).__name__}: it must return one tensor of logits [batch, classes]")
        if logits.ndim != 2 or len(logits) != len(x):
            raise NoiseproofError(
                f"the network returns shape {tuple(logits.shape)} for {len(x)} inputs: it must return logits [batch, classes]"
            )
        return logits


def adapt(module: nn.Module, *, bounds: tuple[float, float] = (0.0, 1.0)) -> nn.Module:
    """Return any `nn.Module` that gives logits as a network of noiseproof; the module itself is neither changed nor copied.

    `bounds`: the valid range of its inputs, in the data's own units. A network of noiseproof comes back as it is.
    Parameters keep their names behind the prefix `module.`

    Raises `NoiseproofError` when `module` is no `nn.Module` or holds NaN, and at the first call when it returns no logits.

    Example:
        >>> network = adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
        >>> network(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    require(isinstance(module, nn.Module), "network", type(module).__name__, "give a torch.nn.Module that returns logits")
    require(len(bounds) == 2 and bounds[0] < bounds[1], "bounds", bounds, "give (lowest, highest) valid input value")
    parameters_of(module)
    return module if isinstance(module, Network | Adapted) else Adapted(module, bounds)


@torch.no_grad()
def check_fits(network: nn.Module, x: Tensor, classes: int) -> None:
    """Run two samples through the network, before any long work: the logits must be [2, classes] and finite.

    Raises `NoiseproofError` when the network cannot take the data or gives something else.
    """
    try:
        logits = call_inference(network, parameters_of(network), x[:2])
    except NoiseproofError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise NoiseproofError(f"the network cannot take inputs of shape {tuple(x[:2].shape)}: {str(error).splitlines()[0]}") from error
    if logits.shape[-1] != classes:
        raise NoiseproofError(f"the network gives {logits.shape[-1]} logits and the data has {classes} classes: these must be equal")
    if not bool(torch.isfinite(logits).all()):
        raise NoiseproofError("the network gives logits that are NaN or infinite: check its weights and the range of the inputs")
