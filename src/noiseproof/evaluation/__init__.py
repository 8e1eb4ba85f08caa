"""Measurements on trained networks: chips, adversary, landscape, the mismatch that is tolerated."""

from noiseproof.evaluation.attack_curves import attack_curves
from noiseproof.evaluation.evaluate import Evaluation, evaluate, measure_all
from noiseproof.evaluation.landscape import landscape
from noiseproof.evaluation.ledger import Ledger
from noiseproof.evaluation.measures import Measures
from noiseproof.evaluation.monte_carlo import monte_carlo
from noiseproof.evaluation.tolerated import tolerated_mismatch

__all__ = ["Evaluation", "Ledger", "Measures", "attack_curves", "evaluate", "landscape", "measure_all", "monte_carlo", "tolerated_mismatch"]
