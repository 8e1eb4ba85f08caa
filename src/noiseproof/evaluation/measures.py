from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from noiseproof import config
from noiseproof.attacks import WeightAttack
from noiseproof.errors import NoiseproofError, require, require_number, unknown
from noiseproof.evaluation.tolerated import LARGEST, Range
from noiseproof.noise import Gaussian, MaxRelativeGaussian, Mismatch, Noise


@dataclass(frozen=True)
class Measures:
    """What is measured on a trained network. Mismatch ζ is one standard deviation.

    Raises `NoiseproofError` for a value out of range.
    """

    # levels ζ of mismatch: weight noise of standard deviation ζ|θ|
    mismatch: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
    # levels of constant noise: standard deviation in the unit of the weights
    gaussian: tuple[float, ...] = ()
    # levels η of noise relative to the largest weight of an output channel
    max_relative: tuple[float, ...] = ()
    # any other noise, spelled out: "pcm(time=25|3600)", "quantisation(bits=8) > mismatch(zeta=0.1|0.3)"
    noise: tuple[str, ...] = ()
    # noises in one layer at a time, spelled in the same way: which layer does it hurt?
    layer_noise: tuple[str, ...] = ()
    # simulated chips a level
    chips: int = 100
    # instead: chips until the mean is certain to so many percentage points (95 %); 0: a fixed number
    half_width: float = 0.0
    # most chips that half_width may ask for
    max_chips: int = 2000
    # what noise and attacks act on: weights | all | patterns of names
    parameters: str = "weights"
    # half-widths ζ of the boxes (or ellipsoids) in which an adversary looks for the worst weights
    attack: tuple[float, ...] = ()
    # what the adversary makes large: kl, ce, dlr
    attack_objectives: tuple[str, ...] = ("kl", "ce")
    # gradient steps of the adversary; several numbers give several curves
    attack_steps: tuple[int, ...] = (10,)
    attack_restarts: int = 3
    attack_norm: Literal["linf", "l2", "l2-euclidean"] = "linf"
    # radius of the l2 ball in relative coordinates; mismatch lies near the square root of the number of parameters
    attack_l2_radius: float = 1.0
    # test samples that share one perturbation
    attack_samples: int = 1000
    # random directions of the loss landscape; 0: none
    landscape: int = 0
    # samples of the landscape: test, train (as many of these as there are for the test, drawn once, not augmented)
    landscape_splits: tuple[Literal["test", "train"], ...] = ("test",)
    # test samples whose membrane potentials are set against the threshold, in a spiking network; 0: none
    membranes: int = 0
    # the largest mismatch at which required_yield of the chips reach this accuracy; 0: not asked
    required_accuracy: float = 0.0
    required_yield: float = 0.95
    # other noises of which the largest level is searched, between two: "pcm(time=25|31536000)"; needs required_accuracy
    tolerated: tuple[str, ...] = ()
    # seed of chips, attacks and directions
    chip_seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (
            ("chips", 1),
            ("max_chips", 16),
            ("attack_restarts", 1),
            ("attack_samples", 1),
            ("landscape", 0),
            ("membranes", 0),
            ("chip_seed", 0),
        ):
            require_number(name, getattr(self, name), low, whole=True)
        require_number("half_width", self.half_width, 0)
        require_number("required_accuracy", self.required_accuracy, 0, 1)
        require_number("required_yield", self.required_yield, 0, 1, open_low=True)
        for objective in self.attack_objectives:
            if objective not in ("kl", "ce", "dlr"):
                raise unknown("attack_objectives", objective, ("kl", "ce", "dlr"))
        if self.attack and not (self.attack_objectives and self.attack_steps):
            raise NoiseproofError("attack is given without attack_objectives or attack_steps: give at least one of each")
        if self.tolerated and not self.required_accuracy:
            raise NoiseproofError("tolerated is given without required_accuracy: give the accuracy that a chip must reach")
        require(bool(self.landscape_splits), "landscape_splits", self.landscape_splits, "give test, train or both")
        self.noises()
        self.noises_by_layer()
        self.ranges()
        self.attacks()

    def noises(self) -> list[Noise]:
        """Return every noise that is asked for."""
        found: list[Noise] = [Mismatch(zeta=level, parameters=self.parameters) for level in self.mismatch]
        found += [Gaussian(std=level, parameters=self.parameters) for level in self.gaussian]
        found += [MaxRelativeGaussian(eta=level, parameters=self.parameters) for level in self.max_relative]
        return found + [noise for text in self.noise for noise in config.spelled_noises(text, "noise")]

    def noises_by_layer(self) -> list[Noise]:
        """Return every noise that is to act in one layer at a time."""
        return [noise for text in self.layer_noise for noise in config.spelled_noises(text, "layer_noise")]

    def ranges(self) -> list[Range]:
        """Return every range in which the largest level is searched that is tolerated."""
        found = [Range(Mismatch(zeta=0.0, parameters=self.parameters), Mismatch(zeta=LARGEST, parameters=self.parameters))]
        for text in self.tolerated:
            ends = config.spelled_noises(text, "tolerated")
            require(len(ends) == 2, "tolerated", text, 'give one setting a lowest and a highest level, as in "mismatch(zeta=0|2)"')
            found.append(Range(*ends))
        return found if self.required_accuracy else []

    def attacks(self) -> list[WeightAttack]:
        """Return every attack that is asked for."""
        return [
            WeightAttack(
                zeta=zeta,
                norm=self.attack_norm,
                objective=objective,  # pyright: ignore[reportArgumentType] (checked above)
                steps=steps,
                parameters=self.parameters,
                l2_radius=self.attack_l2_radius,
            )
            for objective in self.attack_objectives
            for steps in self.attack_steps
            for zeta in self.attack
        ]
