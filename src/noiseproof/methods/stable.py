from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from noiseproof.attacks import Attack
from noiseproof.errors import NoiseproofError, require, require_number, unknown
from noiseproof.methods._base import Batch, Context
from noiseproof.methods._perturbing import InputMethod, is_spiking, mixed, one_attack, passes_of, run_at
from noiseproof.neurons import Neuron, Recurrent
from noiseproof.neurons.dynamics import Reduce, layer_dynamics, ms_mppd, perturbation_dynamics, std_distance, tasad
from noiseproof.parameters import Params


@dataclass(frozen=True)
class Stable(InputMethod):
    """Robust Stable SNN: L = χ·CE(f(x), y) + (1 − χ)·CE(f(x′), y) + ρ·D, D how far x′ moves the last spiking layer away from x.

    D is the MS-MPPD: the mean square of ε[t] = λ·ε[t−1] + Δ[t], Δ the clean minus the perturbed current of the layer, the mean over the
    batch; or TASAD or STD of its spikes, differentiated through the surrogate. x′ is made as in `AdversarialTraining`; both passes are
    those of training, and batch norm follows both.
    Source: Ding et al., ICML 2024, eqs. (11), (14), (16), (17), and (12), (13) for TASAD and STD (χ 0.5, ρ 1; R+FGSM 4/255, or Gaussian
    noise of 8/255). The text sums ε² over neurons and steps; its public code, with which ρ = 1 was found, takes the mean, and holds the
    clean current constant. Both are options. With the clean current held constant the step is no descent of D: W turns f(x′) towards what
    f(x) was, and f(x) goes along. With one layer of neurons, or without batch norm, D may grow; then take `detach_clean = false`.

    Raises `NoiseproofError` when a setting is out of its range, for a network without spiking neurons (unless ρ is 0), a layer that
    does not exist, and an outside layer, whose leak is not known, without `leak`.

    Example:
        >>> Stable(rho=2.0).gradient_evaluations
        3
    """

    # the attack, or noise on inputs: r-fgsm, pgd, "random-noise(kind=gaussian, eps=8/255)" …
    perturbation: str = "r-fgsm(eps=4/255)"
    # χ: share of the loss at the inputs as they are
    mix: float = 0.5
    # ρ: weight of the distance
    rho: float = 1.0
    # ms-mppd, or the distances of spike trains that it was compared with
    distance: Literal["ms-mppd", "tasad", "std"] = "ms-mppd"
    # layer of neurons, by the name of its trace; empty: the last one
    layer: str = ""
    # leak: λ of the layer, as published; effective: its whole equation, with a[t] of dlif and the gain of the current
    dynamics: Literal["leak", "effective"] = "leak"
    # λ; 0: the layer's own, which a layer from outside does not say
    leak: float = 0.0
    # no gradient through the clean pass of ms-mppd
    detach_clean: bool = True
    # ε² over neurons and steps: mean, as the public code has it, or sum, as the text
    reduce: Reduce = "mean"

    def __post_init__(self) -> None:
        _ = self.made
        require_number("mix", self.mix, 0, 1)
        require_number("rho", self.rho, 0)
        require(self.distance in ("ms-mppd", "tasad", "std"), "distance", self.distance, "give ms-mppd, tasad or std")
        require(self.dynamics in ("leak", "effective"), "dynamics", self.dynamics, "give leak or effective")
        require_number("leak", self.leak, 0, 1)
        require(not self.leak or self.dynamics == "leak", "leak", self.leak, "dynamics effective takes all from the layer; leave it out")
        require(self.reduce in ("mean", "sum"), "reduce", self.reduce, "give mean or sum")

    @property
    def made(self) -> Attack:
        """The attack or noise that makes x′."""
        return one_attack(self.perturbation, "perturbation")

    @property
    def gradient_evaluations(self) -> float:
        return passes_of(self.perturbation) + 2

    def start(self, network: nn.Module) -> dict[str, Tensor]:
        if self.rho and not is_spiking(network):
            raise NoiseproofError("method is 'stable': the network has no spiking neurons; take adversarial-training, or rho = 0")
        return {}

    def perturb(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        return self.made.craft(network, params, *batch, context.generator)

    def loss_at(self, network: nn.Module, params: Params, batch: Batch, perturbed: Tensor) -> Tensor:
        x, y = batch
        kind = "current" if self.distance == "ms-mppd" else "spikes"
        clean, moved = (run_at(network, params, z, record=(kind,) if self.rho else ()) for z in (x, perturbed))
        task = mixed(self.mix, clean.logits, moved.logits, y)
        if not self.rho:
            return task
        name = self._layer(clean.traces[kind])
        return task + self.rho * self.distances(network, name, clean.traces[kind][name], moved.traces[kind][name]).mean()  # eq. (17)

    def distances(self, network: nn.Module, name: str, clean: Tensor, perturbed: Tensor) -> Tensor:
        """Return D of every sample [B] from the traces [T, B, …] of a layer: currents for ms-mppd, spikes for the others."""
        if self.distance != "ms-mppd":
            return (tasad if self.distance == "tasad" else std_distance)(clean, perturbed)
        delta = (clean.detach() if self.detach_clean else clean) - perturbed
        if self.leak:
            return ms_mppd(perturbation_dynamics(delta, self.leak), self.reduce)
        layer = dict(network.named_modules()).get(name)
        if not isinstance(layer, Neuron | Recurrent):
            raise NoiseproofError(f"leak is 0: layer {name} comes from outside and does not say its leak; give leak=0.9, or what it is")
        return ms_mppd(layer_dynamics(layer, delta, effective=self.dynamics == "effective"), self.reduce)

    def _layer(self, traces: dict[str, Tensor]) -> str:
        if self.layer and self.layer not in traces:
            raise unknown("layer", self.layer, traces)
        return self.layer or list(traces)[-1]


method = Stable
