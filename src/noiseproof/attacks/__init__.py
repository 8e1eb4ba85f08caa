"""What an adversary does to parameters (and, later, to inputs)."""

from noiseproof.attacks.bit_flips import BitFlips, Flipped
from noiseproof.attacks.weights import Perturbation, WeightAttack

__all__ = ["BitFlips", "Flipped", "Perturbation", "WeightAttack"]
