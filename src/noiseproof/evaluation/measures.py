from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from noiseproof import config
from noiseproof.attacks import Attack, WeightAttack
from noiseproof.certificates._box import Box
from noiseproof.certificates._rounding import Arithmetic, Rounding
from noiseproof.certificates.certify import BOUNDS
from noiseproof.errors import NoiseproofError, naming, require, require_number, unknown
from noiseproof.evaluation.ladder import Rungs
from noiseproof.evaluation.operations import OperationCosts, operation_costs
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
    # half-widths z of the boxes |θ' − θ| ≤ z|θ| in which every chip is proved right, and attacked sample by sample
    box: tuple[float, ...] = ()
    # which parameters move in the boxes; default: parameters
    box_parameters: str = ""
    # largest change of an input that the boxes hold too, in the unit of the data
    box_eps: float = 0.0
    # test samples that are proved and attacked, the first ones
    box_samples: int = 200
    # intervals, backward, backward-full, spiking, spiking-backward; default: all that fit the network, but
    # backward-full and spiking-backward on at most 16,384 units alone, as they take seconds a sample
    box_bounds: tuple[str, ...] = ()
    # in which the network is computed, and whose rounding is counted in; float64: of networks in it; exact: real numbers
    box_arithmetic: Arithmetic = "float32"
    # gradient steps of every start of the attacks in the box
    box_steps: int = 10
    box_restarts: int = 1
    # attacks on the inputs, spelled out: "pgd(eps=2/255|8/255, steps=20)", "ensemble(eps=8/255)"
    input_attacks: tuple[str, ...] = ()
    # test samples that these attack, the first ones
    input_samples: int = 1000
    # attack seeds; of several the worst case, sample by sample, is recorded too
    input_seeds: int = 1
    # with every attack what says whether its figure can be trusted: other steps and ε, noise, an attack without gradients
    input_checks: bool = True
    # folder of a run on whose network gradient attacks are made too, a black box; in a plan a training's name, or other-seed
    transfer_from: str = ""
    # random directions of the loss landscape; 0: none
    landscape: int = 0
    # samples of the landscape: test, train (as many of these as there are for the test, drawn once, not augmented)
    landscape_splits: tuple[Literal["test", "train"], ...] = ("test",)
    # test samples whose membrane potentials are set against the threshold, in a spiking network; 0: none
    membranes: int = 0
    # test samples whose spikes are counted, layer by layer, in a spiking network; 0: none
    activity: int = 0
    # test samples on which a spiking network is asked for its answer after every step; 0: none
    latency: int = 0
    # test samples over which the energy of one inference is averaged; 0: none
    energy: int = 0
    # what operations cost: fp32 or int32 (45 nm), or a file (.toml, .csv) with name, ac and mac in pJ
    operation_costs: tuple[str, ...] = ("fp32", "int32")
    # products of the first layer of a still input: at every step, or once where a chip keeps the current
    first_layer: Literal["every-step", "once"] = "every-step"
    # attacks on the inputs whose perturbations are followed through a spiking network, spelled out: "pgd(eps=8/255)"
    perturbed_by: tuple[str, ...] = ()
    # test samples that these perturb
    perturbed_samples: int = 200
    # leaks at which the same pairs go through one LIF layer, threshold 0.8, 10 steps
    perturbed_leaks: tuple[float, ...] = ()
    # exact L2 gain of the perturbation dynamics of every spiking layer, with the bounds beside it
    gain: bool = False
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
            ("box_samples", 1),
            ("box_steps", 1),
            ("box_restarts", 1),
            ("input_samples", 1),
            ("input_seeds", 1),
            ("landscape", 0),
            ("membranes", 0),
            ("activity", 0),
            ("latency", 0),
            ("energy", 0),
            ("perturbed_samples", 1),
            ("chip_seed", 0),
        ):
            require_number(name, getattr(self, name), low, whole=True)
        require_number("half_width", self.half_width, 0)
        for leak in self.perturbed_leaks:
            require_number("perturbed_leaks", leak, 0, 1, open_low=True)
        if self.perturbed_leaks and not self.perturbed_by:
            raise NoiseproofError("perturbed_leaks is given without perturbed_by: give the attacks that make the pairs")
        require_number("required_accuracy", self.required_accuracy, 0, 1)
        require_number("required_yield", self.required_yield, 0, 1, open_low=True)
        for objective in self.attack_objectives:
            if objective not in ("kl", "ce", "dlr"):
                raise unknown("attack_objectives", objective, ("kl", "ce", "dlr"))
        if self.attack and not (self.attack_objectives and self.attack_steps):
            raise NoiseproofError("attack is given without attack_objectives or attack_steps: give at least one of each")
        if self.tolerated and not self.required_accuracy:
            raise NoiseproofError("tolerated is given without required_accuracy: give the accuracy that a chip must reach")
        for name in self.box_bounds:
            if name not in BOUNDS:
                raise unknown("box_bounds", name, BOUNDS)
        Rounding(self.box_arithmetic)
        require(bool(self.landscape_splits), "landscape_splits", self.landscape_splits, "give test, train or both")
        if self.transfer_from and not self.input_attacks:
            raise NoiseproofError("transfer_from is given without input_attacks: give the attacks that are made on its network")
        self.noises()
        self.noises_by_layer()
        self.ranges()
        self.on_inputs()
        self.perturbing()
        self.costs()
        self.attacks()
        with naming("box"):
            self.boxes()

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

    def on_inputs(self) -> list[Attack]:
        """Return every attack on the inputs that is asked for."""
        return [attack for text in self.input_attacks for attack in config.spelled_attacks(text, "input_attacks")]

    def perturbing(self) -> list[Attack]:
        """Return every attack whose perturbations are to be followed through the network."""
        return [attack for text in self.perturbed_by for attack in config.spelled_attacks(text, "perturbed_by")]

    def boxes(self) -> list[Box]:
        """Return every box in which chips are proved right."""
        return [Box(z, self.box_parameters or self.parameters, self.box_eps) for z in self.box]

    def rungs(self) -> Rungs:
        """Return how they are proved right, and attacked."""
        return Rungs(self.box_bounds, self.box_arithmetic, self.box_steps, self.box_restarts)

    def costs(self) -> list[OperationCosts]:
        """Return what operations are to cost."""
        return [costs for name in self.operation_costs for costs in operation_costs(name)]

    def attacks(self) -> list[WeightAttack]:
        """Return every attack on the weights that is asked for."""
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
