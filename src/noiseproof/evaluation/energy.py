from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

from torch import nn

from noiseproof.data import Split
from noiseproof.errors import require, require_number
from noiseproof.evaluation._figures import BLOCK, Figure, averaged
from noiseproof.evaluation.ledger import Ledger
from noiseproof.evaluation.operations import OperationCosts, operation_costs, operations
from noiseproof.methods._perturbing import is_spiking
from noiseproof.networks import adapt
from noiseproof.progress import Progress
from noiseproof.randomness import stochastic
from noiseproof.records import Record

FirstLayer = Literal["every-step", "once"]


def energy(
    network: nn.Module,
    split: Split,
    *,
    samples: int = 200,
    costs: Sequence[OperationCosts] | None = None,
    first_layer: FirstLayer = "every-step",
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Return what one inference costs in operations, E = Σ_l FL_l·ζ_l·E_op in pJ, layer by layer and in total.

    FL_l counts the multiplications of a layer (Table 6), ζ_l how often an input comes into it: the spikes per input of what comes
    *in*, over all steps, each an accumulate (AC); numbers instead of spikes are multiplied and accumulated (MAC). So the first layer
    under direct coding costs T MACs a weight, ζ_1 = T in eq. (8); with `first_layer="once"` one, on a chip that keeps its current,
    which stays the same. Under rate coding it costs ACs like all others, eq. (7).

    Records, means over the first `samples` samples. A layer, at {"layer": k}: flops, input_activity (ζ_l), operations_per_inference
    (FL_l·ζ_l), and energy_pj for each of `costs` (default: fp32 and int32 in 45 nm). The network: energy_pj, and of a spiking
    one plain_energy_pj, that of the same layers with numbers instead of spikes, once for a still input, once a step for a sequence.
    Average pooling and batch norm are folded into weights and cost nothing; membranes, memory and moving data are not counted.
    Source: Kundu et al., ICCV 2021, Tables 6 and 7, eqs. (7) and (8).

    Raises `NoiseproofError` for numbers out of range, a network without a convolution or a dense layer, and spikes that are averaged
    over windows of unequal size.

    Example:
        >>> import torch
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,), neuron="lif", steps=4).build(data.task, torch.Generator().manual_seed(0))
        >>> first = next(r for r in energy(network, data.test) if r.metric == "operations_per_inference")
        >>> first.perturbation["operation"], first.value == 4 * 784 * 20
        ('mac', True)
    """
    require_number("samples", samples, 1, whole=True)
    require(first_layer in ("every-step", "once"), "first_layer", first_layer, "give every-step or once")
    network, prices = adapt(network), list(costs if costs is not None else (*operation_costs("fp32"), *operation_costs("int32")))
    numbers = _numbers(network, Split(split.x[:samples], split.y[:samples]))

    def made(part: Split, block: int) -> list[Figure]:
        return figures(network, part, prices, first_layer, numbers)

    return averaged(split, samples, made, ledger=ledger or Ledger(), progress=progress)


def figures(
    network: nn.Module, part: Split, prices: Sequence[OperationCosts], first_layer: FirstLayer, numbers: Collection[str] = ()
) -> list[Figure]:
    """Return the operations and energies of some samples, in the order of the network; `numbers` as `operations` takes them."""
    done = operations(network, part.x, numbers)
    require(bool(done), "energy", type(getattr(network, "module", network)).__name__, "it has no layer of torch.nn that is counted")
    spiking, passes = is_spiking(network), _passes(network, part)
    if spiking and first_layer == "once":
        done = {layer: found if found.spikes else replace(found, activity=passes) for layer, found in done.items()}
    asked = {"first_layer": first_layer} if spiking else {}
    figures, totals = [], dict.fromkeys(prices, 0.0)
    for place, (layer, found) in enumerate(done.items()):
        here, at = {"layer": layer, "operation": "ac" if found.spikes else "mac", **asked}, {"layer": float(place)}
        count = found.flops * found.activity
        figures.append(Figure("flops", found.flops, {"layer": layer}, at))
        figures.append(Figure("input_activity", found.activity, here, at))
        figures.append(Figure("operations_per_inference", count, here, at))
        for costs in prices:
            spent = count * (costs.ac if found.spikes else costs.mac)
            totals[costs] += spent
            figures.append(Figure("energy_pj", spent, here | costs.describe(), at))
    dense = passes * sum(found.flops for found in done.values())
    for costs in prices:
        figures.append(Figure("energy_pj", totals[costs], asked | costs.describe()))
        if spiking:
            figures.append(Figure("plain_energy_pj", dense * costs.mac, costs.describe()))
    return figures


def _numbers(network: nn.Module, part: Split) -> set[str]:
    """Return the layers into which numbers come. Zeros do not tell them from spikes, so that more samples are asked where all are."""
    found: set[str] = set()
    with stochastic(0, running=True):
        for x in part.x.split(BLOCK):
            done = operations(network, x, found)
            found |= {name for name, layer in done.items() if not layer.spikes}
            if all(layer.activity for layer in done.values()):
                break
    return found


def _passes(network: nn.Module, part: Split) -> float:
    """Return how often the same layers without spikes would be passed: once, or once a step of a sequence."""
    sequence = getattr(network, "sequence", False) or getattr(getattr(network, "time", None), "sequence", False)
    return float(part.x.shape[1]) if sequence else 1.0
