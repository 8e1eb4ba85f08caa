"""Spiking neurons: one equation with its settings, exact and fast. This file is the table of public names."""

from noiseproof.neurons.alif import ALIF
from noiseproof.neurons.allocator import tune_allocator
from noiseproof.neurons.dlif import DLIF
from noiseproof.neurons.encodings import direct, latency, poisson
from noiseproof.neurons.equation import Constants, Emitted, Form, State, reference
from noiseproof.neurons.kernels import integrate, using
from noiseproof.neurons.lif import IF, LIF
from noiseproof.neurons.neuron import Neuron
from noiseproof.neurons.recurrent import Recurrent
from noiseproof.neurons.surrogates import Atan, FastSigmoid, Rectangle, Sigmoid, Surrogate, Triangle, surrogate

__all__ = [
    "ALIF",
    "DLIF",
    "IF",
    "LIF",
    "Atan",
    "Constants",
    "Emitted",
    "FastSigmoid",
    "Form",
    "Neuron",
    "Rectangle",
    "Recurrent",
    "Sigmoid",
    "State",
    "Surrogate",
    "Triangle",
    "direct",
    "integrate",
    "latency",
    "poisson",
    "reference",
    "surrogate",
    "tune_allocator",
    "using",
]
