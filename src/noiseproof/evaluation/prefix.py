"""Layers before the first noisy one, computed once: chips that agree up to a layer share what comes into it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from noiseproof.data import Split
from noiseproof.networks import Network, SpikingNetwork
from noiseproof.networks._spiking import Pass, walk
from noiseproof.parameters import Params, functional_call, inference_mode
from noiseproof.randomness import stochastic

# Most memory for kept activations. The input of the second convolution of paper A's CNN just fits for 10,000 images
MOST_BYTES = 512 * 2**20


class Part(nn.Module):
    """Layers `first` to `last` of a network of ours, one after the other, under their own names: [B, …] → [B, …].

    Activations of a spiking network are [B, T, …], or [B, 1, …] while nothing has changed in time yet. `layout` is that in which
    the first layer takes its input in the whole network: sums over another layout may differ in the last digit.
    """

    def __init__(
        self, network: Network, first: int, last: int | None = None, layout: torch.memory_format = torch.contiguous_format
    ) -> None:
        super().__init__()
        self._layout = layout
        for name, layer in list(network.named_children())[first:last]:
            self.add_module(name, layer)
        self._check = network._check if first == 0 else None
        self._in_time = network._in_time if first == 0 and isinstance(network, SpikingNetwork) else None
        self._ends = last is None
        self._steps = None
        if isinstance(network, SpikingNetwork):
            self._steps = network.shape[0] if network.sequence else network.steps

    def forward(self, x: Tensor) -> Tensor:
        if self._check is not None:
            self._check(x)
        if self._steps is None:
            for layer in self.children():
                x = layer(x)
            return x
        if self._in_time is None:
            steps = x.shape[1]
            z = x.transpose(0, 1).flatten(0, 1).contiguous(memory_format=self._layout).unflatten(0, (steps, -1))
        else:
            z = self._in_time(x, None, None)[0]
        passing = Pass(self._steps)
        for name, layer in self.named_children():
            z = walk(layer, z, passing, name)
        return z if self._ends else z.transpose(0, 1)

    def own(self, params: Params) -> Params:
        """Return those of a network's parameters that these layers have."""
        return {name: params[name] for name, _ in self.named_parameters() if name in params}


@dataclass(frozen=True)
class Rest:
    """What is left to do for every chip: the layers from the first noisy one on, and what comes into it in the place of x."""

    layers: Part
    split: Split


def first_changed(network: nn.Module, params: Params, chips: Iterable[Params]) -> int:
    """Return the number of the first layer of a network of ours in which a chip differs from `params`; 0 for all other networks.

    A parameter that a noise does not touch is passed on as the same tensor, so no numbers are compared. The count begins at
    the first layer with parameters: before it there is nothing worth keeping.
    """
    if type(network) not in (Network, SpikingNetwork):
        return 0
    changed = {name for chip in chips for name, p in params.items() if chip[name] is not p}
    begun = False
    for number, (name, layer) in enumerate(network.named_children()):
        if any(one.startswith(f"{name}.") for one in changed):
            return number if begun else 0
        begun = begun or any(True for _ in layer.parameters())
    return 0


@torch.no_grad()
def cut(network: Network, params: Params, split: Split, first: int, block: int, most_bytes: int = MOST_BYTES) -> Rest | None:
    """Run the layers before `first` at `params` over the split, once, as in inference; None where the result would take too much memory.

    The blocks are those of the measurement, and the random numbers of coded inputs too: the same values to the last digit.
    """
    front = Part(network, 0, first)
    own, buffers = front.own(params), {name: b.clone() for name, b in front.named_buffers()}
    kept, layout = torch.empty(0), torch.contiguous_format
    with inference_mode(front), stochastic(0, running=True):
        for start in range(0, len(split), block):
            made = functional_call(front, (own, buffers), (split.x[start : start + block],))
            if start == 0:
                if made[0].numel() * made.element_size() * len(split) > most_bytes:
                    return None
                layout = _layout(made if front._steps is None else made.transpose(0, 1).flatten(0, 1))
                # in time, steps lie together here, and each block is laid out when it is taken
                kept = made.new_empty((len(split), *made.shape[1:]))
                kept = kept if front._steps is not None else kept.contiguous(memory_format=layout)
            kept[start : start + block] = made
    return Rest(Part(network, first, layout=layout), Split(kept, split.y))


def _layout(images: Tensor) -> torch.memory_format:
    last = images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
