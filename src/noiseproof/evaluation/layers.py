from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from noiseproof.data import Split
from noiseproof.errors import require_number
from noiseproof.evaluation.chips import Measurer, measurer, steps_of
from noiseproof.evaluation.ledger import Ledger
from noiseproof.evaluation.monte_carlo import monte_carlo
from noiseproof.networks import adapt
from noiseproof.noise import Compose, Noise
from noiseproof.noise._devices import PartOfChip
from noiseproof.parameters import parameters_of
from noiseproof.progress import Progress
from noiseproof.records import Record


def layer_sensitivity(
    network: nn.Module,
    split: Split,
    noises: Sequence[Noise],
    *,
    chips: int = 100,
    half_width: float = 0.0,
    max_chips: int = 2000,
    seed: int = 0,
    processes: int | None = None,
    measure: Measurer | None = None,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Return the accuracy on simulated chips with the noise in one layer at a time, one record a layer, noise and chip.

    A layer is a module that has parameters of its own; the noise acts on those of them that it selects. Layers in which it selects
    nothing are left out. A record carries the layer's name in its perturbation, with what the noise acts on in all layers ("of",
    unless it is all matrices), and its place in the network at {"layer": k}.
    Chip i has in every layer the parameters that it has with the noise in all layers at once. In a network of ours, what comes
    into the noisy layer is computed once for all noises and chips.

    Raises `NoiseproofError` for numbers out of range, or when a noise selects no parameter.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=50)
        >>> network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10)))
        >>> records = layer_sensitivity(network, data.test, [npf.noise.Mismatch(zeta=0.3)], chips=2, processes=1)
        >>> [(record.perturbation["layer"], record.chip) for record in records]
        [('1', 0), ('1', 1), ('3', 0), ('3', 1)]
    """
    require_number("chips", chips, 1)
    network, ledger = adapt(network), ledger or Ledger()
    if measure is None:
        with measurer(network, split, processes=processes) as measure:
            return layer_sensitivity(
                network, split, noises, chips=chips, half_width=half_width, max_chips=max_chips, seed=seed, measure=measure, ledger=ledger,
                progress=progress,
            )  # fmt: skip
    found: list[Record] = []
    # the noises of one layer follow each other, so that what comes into it is computed once
    for place, (layer, names) in enumerate(layers_of(network).items()):
        for noise in noises:
            inside = in_layer(network, noise, names)
            if inside is None:
                continue
            found += monte_carlo(
                network, split, inside, chips=chips, half_width=half_width, max_chips=max_chips, seed=seed,
                described=inside.describe() | {"layer": layer} | _of(noise), at={"layer": float(place)}, measure=measure, ledger=ledger,
                progress=progress,
            )  # fmt: skip
    return found


def layers_of(network: nn.Module) -> dict[str, list[str]]:
    """Return the names of the parameters by the layer that owns them, in the order of the network."""
    found: dict[str, list[str]] = {}
    for name in parameters_of(network):
        layer = name.removeprefix("module.").rpartition(".")[0]
        found.setdefault(layer or "network", []).append(name)
    return found


def in_layer(network: nn.Module, noise: Noise, names: Sequence[str]) -> Noise | None:
    """Return the noise on those of the named parameters that it selects, step by step; None where no step selects any.

    Raises `NoiseproofError` when a step selects nothing in the whole network.
    """
    params, kept = parameters_of(network), {}
    devices = True  # whether there are any here, for steps that act on them
    for place, step in enumerate(steps_of(noise)):
        if step.stage in ("devices", "read"):  # on whatever was programmed
            kept |= {place: step} if devices else {}
        elif devices or step.stage == "program":
            chosen = step.selected(params)
            here = [name for name in names if name in chosen]
            kept |= {place: replace(step, parameters=",".join(here))} if here else {}
            devices = bool(here) or step.stage != "program"
        devices = devices or step.stage == "read"
    if not kept:
        return None
    return noise.part(kept) if isinstance(noise, Compose) else kept[0]


def _of(noise: Noise) -> dict[str, str]:
    """Return, as {"of": …}, what a noise acts on in all layers at once; nothing for all matrices, the rule."""
    chosen = [step.parameters for step in steps_of(noise) if not isinstance(step, PartOfChip)]
    which = chosen[0] if len(set(chosen)) == 1 else " > ".join(chosen)
    return {} if which == "weights" else {"of": which}
