"""What an adversary does to parameters (and, later, to inputs)."""

from noiseproof.attacks.weights import Perturbation, WeightAttack

__all__ = ["Perturbation", "WeightAttack"]
