"""What the spiking and plain versions of one architecture share: the settings of its neurons, and a builder that keeps the shapes."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from torch import nn

from noiseproof.data import Task
from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.networks._base import Architecture, ChannelsLast, Network
from noiseproof.networks._spiking import Coding, How, Readout, SequenceDropout, SpikingNetwork
from noiseproof.neurons import ALIF, DLIF, IF, LIF, Neuron, surrogate
from noiseproof.neurons.equation import Reset
from noiseproof.neurons.neuron import Per

Kind = Literal["relu", "if", "lif", "dlif", "alif"]


@dataclass(frozen=True)
class NeuronArchitecture(Architecture):
    """An architecture whose hidden units are ReLUs or spiking neurons; the fields say which, and how the neurons are.

    Raises `NoiseproofError` for a value out of range, and for one that would have no effect on the neurons that are chosen.
    """

    # settings of the triangle where none are given
    triangle: ClassVar[tuple[float, ...]] = ()

    # hidden units: relu, or spiking: if, lif, dlif (one more parameter a step), alif (adaptive threshold)
    neuron: Kind = "relu"
    # time steps T that a still input is shown
    steps: int = 8
    # threshold of the neurons (b0 of alif)
    threshold: float = 1.0
    # membrane decay per step λ, in (0, 1]
    leak: float = 0.9
    # instead of the leak: the time constant τ in steps, leak = exp(-1/τ), and the parameter is τ; 0: the leak holds
    tau: float = 0.0
    # hard (to zero), soft (by the threshold) or soft-next (by the threshold, at the next step)
    reset: Reset = "soft"
    # the input is scaled by 1 - leak
    decay_input: bool = False
    # dead steps after a spike
    refractory: int = 0
    # alif: strength of the threshold adaptation, and its time constant in steps
    beta: float = 2.0
    tau_adaptation: float = 98.0
    # dlif: a[t] on the leak, or on the input
    dlif_on: Literal["leak", "input"] = "leak"
    # parameters of the neurons that are trained, such as threshold leak; none given: a[t] of dlif, and no others
    trainable: tuple[str, ...] = ()
    # one parameter of the neurons a layer, a channel or a neuron
    per: Per = "layer"
    # no gradient through the reset
    detach_reset: bool = False
    # triangle, atan, sigmoid, fast-sigmoid, rectangle
    surrogate: str = "triangle"
    # its settings, in the order of its fields (triangle: height, half-width); none: those of the paper, else its defaults
    surrogate_settings: tuple[float, ...] = ()
    # how spikes become logits: rate, sum (accumulated), last or max (membrane)
    readout: How = "rate"
    # decay per step of the membranes that last and max read, in (0, 1]
    readout_leak: float = 1.0
    # how still inputs become sequences: direct, poisson, poisson-expected, latency
    coding: Coding = "direct"

    def __post_init__(self) -> None:
        require_number("steps", self.steps, 1, whole=True)
        require_number("tau", self.tau, 0)
        require(
            self.coding in ("direct", "poisson", "poisson-expected", "latency"), "coding", self.coding, "give direct, poisson or latency"
        )
        Readout(1, 1, self.readout, leak=self.readout_leak)
        if self.spiking:
            self._refuse_what_has_no_effect()
            self.activation((1,) * 3)

    @property
    def spiking(self) -> bool:
        """Whether the hidden units are spiking neurons."""
        return self.neuron != "relu"

    def _refuse_what_has_no_effect(self) -> None:
        require_number("leak", self.leak, 0, 1, open_low=True)
        unused = {"alif": ("reset", "decay_input"), "if": ("leak", "tau", "decay_input")}.get(self.neuron, ())
        reasons = dict.fromkeys(unused, f"neuron {self.neuron} has none of its own")
        if self.tau and self.neuron != "if":
            reasons["leak"] = "tau holds; set tau to 0 to give the leak"
        if self.readout in ("rate", "sum"):
            reasons["readout_leak"] = f"readout {self.readout} has none"
        for name, default in ((f.name, f.default) for f in fields(self)):
            require(
                name not in reasons or getattr(self, name) == default, name, getattr(self, name), f"it has no effect: {reasons.get(name)}"
            )

    def make(self, task: Task) -> Network:
        if not self.spiking:
            return super().make(task)
        if self.coding == "latency":
            require(not self.takes_sequence(task), "coding", self.coding, "the inputs are sequences, whose values have a time already")
        return SpikingNetwork(task, self.layers(task), steps=self.steps, coding=self.coding, sequence=self.takes_sequence(task))

    def takes_sequence(self, task: Task) -> bool:
        """Whether the inputs have a time of their own: frames [T, C, H, W]."""
        return len(task.shape) == 4

    def activation(self, shape: tuple[int, ...]) -> nn.Module:
        """Return the hidden units for one sample's `shape`."""
        if not self.spiking:
            return nn.ReLU()
        return self.neurons(shape)

    def neurons(self, shape: tuple[int, ...]) -> Neuron:
        """Return the spiking neurons for one sample's `shape`."""
        settings = self.surrogate_settings or (self.triangle if self.surrogate == "triangle" else ())
        common = {
            "threshold": self.threshold, "refractory": self.refractory, "detach_reset": self.detach_reset, "per": self.per, "shape": shape,
            "surrogate": surrogate(self.surrogate, *settings),
            "trainable": self.trainable or (("a",) if self.neuron == "dlif" else ()),
        }  # fmt: skip
        if self.neuron == "alif":
            if not self.tau and not self.leak < 1:
                raise NoiseproofError(f"leak is {self.leak!r}: alif needs one below 1")
            return ALIF(tau=self.tau or -1 / math.log(self.leak), tau_adaptation=self.tau_adaptation, beta=self.beta, **common)
        if self.neuron == "if":
            return IF(reset=self.reset, **common)
        common |= {"tau": self.tau, "decay": "exponential"} if self.tau else {"leak": self.leak}
        common |= {"reset": self.reset, "decay_input": self.decay_input}
        return LIF(**common) if self.neuron == "lif" else DLIF(steps=self.steps, on=self.dlif_on, **common)


def widened(channels: int, width: float) -> int:
    """Return `channels` times `width` as a whole number, at least one."""
    return max(1, round(channels * width))


class Layers:
    """Collects the layers of a network, by name and number, and keeps the shape of what comes out of the last one."""

    def __init__(self, architecture: NeuronArchitecture, task: Task) -> None:
        self.architecture, self.classes = architecture, task.classes
        self.shape: tuple[int, ...] = (
            tuple(task.shape[1:]) if architecture.spiking and architecture.takes_sequence(task) else tuple(task.shape)
        )
        self.made: OrderedDict[str, nn.Module] = OrderedDict()
        self.counts: dict[str, int] = {}

    def numbered(self, kind: str) -> str:
        """Return the next name of a kind: conv1, conv2 …"""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return f"{kind}{self.counts[kind]}"

    def images(self) -> None:
        """Begin a convolutional network: the inputs must be images."""
        require(len(self.shape) == 3, "inputs", self.shape, "this network takes images [channels, height, width]")
        self.made["layout"] = ChannelsLast()

    def conv(self, channels: int, *, kernel: int = 3, bias: bool = False, norm: bool = False) -> None:
        """Add a convolution that keeps height and width, and batch norm where it is asked for."""
        self.made[self.numbered("conv")] = nn.Conv2d(self.shape[0], channels, kernel, padding=kernel // 2, bias=bias)
        self.shape = (channels, *self.shape[1:])
        if norm:
            self.norm()

    def norm(self) -> None:
        """Add batch norm."""
        self.made[self.numbered("norm")] = nn.BatchNorm2d(self.shape[0])

    def act(self) -> None:
        """Add hidden units."""
        self.made[self.numbered(self.architecture.neuron)] = self.architecture.activation(self.shape)

    def pool(self, size: int = 2) -> None:
        """Add average pooling.

        Raises `NoiseproofError` where the images are too small for it.
        """
        require(min(self.shape[1:]) >= size, "images", self.shape, f"they are too small at this layer to pool {size}×{size}")
        self.made[self.numbered("pool")] = nn.AvgPool2d(size)
        self.shape = (self.shape[0], self.shape[1] // size, self.shape[2] // size)

    def dropout(self, p: float) -> None:
        """Add dropout, in a spiking network with one mask a sequence."""
        if p:
            self.made[self.numbered("dropout")] = SequenceDropout(p) if self.architecture.spiking else nn.Dropout(p)

    def flatten(self) -> None:
        """Make one vector of each sample."""
        self.made["flatten"] = nn.Flatten()
        self.shape = (math.prod(self.shape),)

    def linear(self, units: int, *, bias: bool = True) -> None:
        """Add a dense layer."""
        self.made[self.numbered("fc")] = nn.Linear(self.shape[0], units, bias=bias)
        self.shape = (units,)

    def out(self, *, bias: bool = True) -> OrderedDict[str, nn.Module]:
        """Add the last layer and return all."""
        width, chosen = self.shape[0], self.architecture
        if chosen.spiking:
            self.made["out"] = Readout(width, self.classes, chosen.readout, bias=bias, leak=chosen.readout_leak)
        else:
            self.made["out"] = nn.Linear(width, self.classes, bias=bias)
        return self.made
