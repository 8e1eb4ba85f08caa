"""What hardware does to parameters. A `Noise` is frozen data; calling it with parameters and a generator makes one chip."""

from noiseproof.noise._base import Noise
from noiseproof.noise.gaussian import Gaussian
from noiseproof.noise.max_relative_gaussian import MaxRelativeGaussian
from noiseproof.noise.mismatch import Mismatch

__all__ = ["Gaussian", "MaxRelativeGaussian", "Mismatch", "Noise"]
