"""Other surrogate gradients in outside networks: put in for one run and taken out again; the neurons keep their values exactly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.errors import NoiseproofError, require
from noiseproof.networks._outside_libraries import LIBRARIES, library_of
from noiseproof.networks._outside_traces import neurons
from noiseproof.neurons.rate_rules import RateRule
from noiseproof.neurons.surrogates import Surrogate

# where each library keeps its surrogate, and where its threshold θ
_PLACES = {
    "snntorch": ("spike_grad", "threshold"),
    "spikingjelly": ("surrogate_function", "v_threshold"),
    "sinabs": ("surrogate_grad_fn", "spike_threshold"),
}


class _OfShifted:
    """A spike function of v − θ, as snnTorch and SpikingJelly have them: its values, with ds/dv = σ'((v − θ)/θ)/θ."""

    def __init__(self, original: Any, surrogate: Surrogate, layer: nn.Module, threshold: str) -> None:
        self.original, self.surrogate, self.layer, self.threshold = original, surrogate, layer, threshold
        # some layers of SpikingJelly ask for it
        self.spiking = getattr(original, "spiking", True)

    def __call__(self, shifted: Tensor, *args: Any) -> Tensor:
        with torch.no_grad():
            spikes = self.original(shifted, *args)
        soft = self.surrogate.primitive(shifted / getattr(self.layer, self.threshold))
        return spikes + (soft - soft.detach())


class _OfBoth:
    """A derivative as a function of v and θ, as sinabs has it."""

    def __init__(self, surrogate: Surrogate) -> None:
        self.surrogate = surrogate

    def __call__(self, v: Tensor, threshold: Tensor | float) -> Tensor:
        return self.surrogate.derivative((v - threshold) / threshold) / threshold


@contextlib.contextmanager
def other_surrogate(network: nn.Module, surrogate: Surrogate | RateRule | None) -> Iterator[None]:
    """Give all neurons of an outside network another surrogate gradient, and at the end their own: the same objects, unchanged.

    Raises `NoiseproofError` for neurons where this cannot be done: of Norse, without a threshold, or of no library that noiseproof knows.
    """
    layers = neurons(network) if surrogate is not None else {}
    if surrogate is not None:
        _check(layers, surrogate)
    kept: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for layer in layers.values():
            library = library_of(layer) or ""
            name, threshold = _PLACES[library]
            assert isinstance(surrogate, Surrogate)
            other = _OfBoth(surrogate) if library == "sinabs" else _OfShifted(getattr(layer, name), surrogate, layer, threshold)
            # straight into the attributes: they come before a submodule of the same name, which stays where it is
            kept.append((vars(layer), name, vars(layer).get(name)))
            vars(layer)[name] = other
        yield
    finally:
        for attributes, name, before in kept:
            if before is None:
                del attributes[name]
            else:
                attributes[name] = before


def _check(layers: dict[str, nn.Module], surrogate: Surrogate | RateRule) -> None:
    """Raise `NoiseproofError` unless every layer can have `surrogate`."""
    names = ", ".join(LIBRARIES[library] for library in _PLACES)
    if not layers:
        raise NoiseproofError(f"surrogate is {surrogate!r}: the network has no spiking neurons of {names}; leave it out")
    if isinstance(surrogate, RateRule):
        raise NoiseproofError(f"surrogate is {surrogate!r}: gradients through firing rates need neurons of noiseproof; give a surrogate")
    require(isinstance(surrogate, Surrogate), "surrogate", surrogate, "give one of noiseproof.neurons, or leave it out")
    for name, layer in layers.items():
        library = library_of(layer) or ""
        what = f"surrogate is {surrogate!r}: layer {name} ({LIBRARIES.get(library, 'unknown')}, {type(layer).__name__})"
        if library not in _PLACES:
            raise NoiseproofError(f"{what} takes none from outside, only {names} do; choose it in the layer itself and leave it out here")
        if not hasattr(layer, _PLACES[library][1]):
            raise NoiseproofError(f"{what} has no threshold to scale it by; leave it out")
