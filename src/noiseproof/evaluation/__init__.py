"""Measurements on trained networks: chips, layer by layer, adversary, landscape, membranes, the level that is tolerated."""

from noiseproof.evaluation.attack_curves import attack_curves
from noiseproof.evaluation.evaluate import Evaluation, check_measures, evaluate, measure_all
from noiseproof.evaluation.landscape import landscape
from noiseproof.evaluation.layers import layer_sensitivity
from noiseproof.evaluation.ledger import Ledger
from noiseproof.evaluation.measures import Measures
from noiseproof.evaluation.membranes import membranes
from noiseproof.evaluation.monte_carlo import monte_carlo
from noiseproof.evaluation.tolerated import tolerated, tolerated_mismatch

__all__ = [
    "Evaluation", "Ledger", "Measures", "attack_curves", "check_measures", "evaluate", "landscape", "layer_sensitivity", "measure_all",
    "membranes", "monte_carlo", "tolerated", "tolerated_mismatch",
]  # fmt: skip
