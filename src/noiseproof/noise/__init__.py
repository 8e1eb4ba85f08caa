"""What hardware does to parameters. A `Noise` is frozen data; calling it with parameters and a generator makes one chip."""

from noiseproof.noise._base import Additive, Noise
from noiseproof.noise._compose import Compose, compose
from noiseproof.noise.gaussian import Gaussian
from noiseproof.noise.max_relative_gaussian import MaxRelativeGaussian
from noiseproof.noise.mismatch import Mismatch

__all__ = ["Additive", "Compose", "Gaussian", "MaxRelativeGaussian", "Mismatch", "Noise", "compose"]
