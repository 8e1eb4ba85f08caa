"""What hardware does to parameters. A `Noise` is frozen data; calling it with parameters and a generator makes one chip."""

from noiseproof.noise._base import Additive, Noise
from noiseproof.noise._compose import Compose, compose
from noiseproof.noise._devices import Chip, Devices
from noiseproof.noise.bit_errors import BitErrors
from noiseproof.noise.drift import Drift
from noiseproof.noise.gaussian import Gaussian
from noiseproof.noise.log_normal import LogNormal
from noiseproof.noise.max_relative_gaussian import MaxRelativeGaussian
from noiseproof.noise.measured import Measured
from noiseproof.noise.mismatch import Mismatch
from noiseproof.noise.pcm import PCM
from noiseproof.noise.program import Program
from noiseproof.noise.quantisation import Quantisation
from noiseproof.noise.read import Read
from noiseproof.noise.stuck import Stuck
from noiseproof.noise.temperature import Temperature
from noiseproof.noise.uniform import Uniform

__all__ = [
    "PCM",
    "Additive",
    "BitErrors",
    "Chip",
    "Compose",
    "Devices",
    "Drift",
    "Gaussian",
    "LogNormal",
    "MaxRelativeGaussian",
    "Measured",
    "Mismatch",
    "Noise",
    "Program",
    "Quantisation",
    "Read",
    "Stuck",
    "Temperature",
    "Uniform",
    "compose",
]
