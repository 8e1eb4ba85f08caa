from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from noiseproof.data import Task
from noiseproof.errors import require, require_number
from noiseproof.networks._architecture import Kind, Layers, NeuronArchitecture
from noiseproof.neurons import Recurrent


@dataclass(frozen=True)
class LSNN(NeuronArchitecture):
    """A recurrent spiking network for sequences [T, F]: input → recurrent neurons with adaptive threshold → rate → linear.

    I[t] = W_in·x[t] + W_rec·s[t−1], the neurons as in `noiseproof.neurons.ALIF`, logits = W_out·mean_t(s[t]) + b.
    Source: Büchel, Faber, Muir, arXiv:2106.05009, eqs. (3)–(4); after Bellec et al. 2018. 256 units, τ 20, τ_ada 98, β 2 (from the
    public code: the text gives none), b0 0.01, dampening 0.3, one dead step (the code's "refractory 2"), zero diagonal in W_rec.

    Raises `NoiseproofError` for data that are not sequences, and for a setting out of its range.
    """

    triangle: ClassVar = (0.3,)

    # recurrent units
    units: int = 256
    neuron: Kind = "alif"
    tau: float = 20.0
    threshold: float = 0.01
    refractory: int = 1
    decay_input: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("units", self.units, 1, whole=True)
        require(self.spiking, "neuron", self.neuron, "lsnn is a spiking network: give if, lif, dlif or alif")

    def takes_sequence(self, task: Task) -> bool:
        require(len(task.shape) == 2, "inputs", task.shape, "network lsnn takes sequences [time, features], as ecg and speech are")
        return True

    def layers(self, task: Task) -> OrderedDict[str, nn.Module]:
        layers = Layers(self, task)
        layers.made["input"] = nn.Linear(layers.shape[0], self.units, bias=False)
        layers.made["recurrent"] = Recurrent(self.neurons((self.units,)), self.units)
        layers.shape = (self.units,)
        return layers.out()


network = LSNN
