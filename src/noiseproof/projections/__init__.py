"""What is done to the parameters after every step of training, whatever the method: projections that any method can carry."""

from noiseproof.projections._base import Projection
from noiseproof.projections.clip import Clip
from noiseproof.projections.rat import RAT
from noiseproof.projections.weight_magnitude import WeightMagnitude

__all__ = ["RAT", "Clip", "Projection", "WeightMagnitude"]
