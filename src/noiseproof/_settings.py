"""The flags that verbs of the command line have beside the fields of what they work with. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from noiseproof.errors import require, require_number


@dataclass(frozen=True)
class Where:
    """Where the work is done; it does not change the result."""

    # folder with data sets; also NOISEPROOF_DATA
    data_dir: str | None = None
    # cpu or cuda
    device: str = "cpu"


@dataclass(frozen=True)
class Out:
    # folder of the run or the plan; default: under runs/
    out: str | None = None


@dataclass(frozen=True)
class Budget:
    # a smaller version of the plan that its file describes, such as small
    budget: str | None = None


@dataclass(frozen=True)
class Limits:
    # these four hold for the whole plan, whatever it says: passes over the training data
    epochs: int | None = None
    # use only so many training samples
    limit_train: int | None = None
    # use only so many test samples
    limit_test: int | None = None
    # simulated chips a level
    chips: int | None = None


@dataclass(frozen=True)
class Chips:
    # processes that simulate chips; default: one a core
    processes: int | None = None


@dataclass(frozen=True)
class Test:
    # use only so many test samples
    limit_test: int | None = None


@dataclass(frozen=True)
class OnInputs:
    # largest changes of an input, in the unit of the data, one attack each: 4/255 8/255; default: attack.eps
    eps: tuple[float, ...] = ()
    # attack only so many test samples, the first ones
    limit_test: int = 1000
    # attack seeds; of several the worst case counts, sample by sample
    seeds: int = 1
    # folder of a run on whose network attacks by gradients are made too, in an ensemble as one more member: a black box
    transfer_from: str = ""
    # file for inputs, perturbed inputs, classes, predictions, success and ε: .npz or .safetensors
    save: str | None = None
    # measure beside every figure what says whether it can be trusted: other steps and ε, noise, an attack without gradients
    checks: bool = True


@dataclass(frozen=True)
class FitPage:
    # the file to write, with the pictures
    out: str = "fit.html"


@dataclass(frozen=True)
class Report:
    # the file to write
    out: str = "report.html"
    # heading of the page
    title: str = "noiseproof report"
    # accuracy at which the yield is drawn, and that chips must reach in the statements about all of them
    required_accuracy: float = 0.0
    # with which these statements hold, each column for all levels of one run and seed together; all other intervals are at 95 %
    confidence: float = 0.95
    # largest share of failing chips that is to be stated
    failure_rate: float = 0.001

    def __post_init__(self) -> None:
        _check_statements(self.confidence, self.failure_rate)
        require_number("required_accuracy", self.required_accuracy, 0, 1)


@dataclass(frozen=True)
class Data:
    # folder with data sets; also NOISEPROOF_DATA
    data_dir: str | None = None


@dataclass(frozen=True)
class Certifying:
    """What is proved, and what is said of chips.

    Raises `NoiseproofError` for a number out of its range.
    """

    # half-widths z of the boxes |θ' − θ| ≤ z|θ|: no chip inside gives a certified sample wrong; --box without a number: chips only
    box: tuple[float, ...] = (0.001, 0.01)
    # levels ζ of mismatch, one standard deviation, at which chips are simulated and spoken of
    mismatch: tuple[float, ...] = (0.1,)
    # accuracy that a chip must reach to count in the yield; 0: not asked
    yield_accuracy: float = 0.0
    # largest share of failing chips that is to be stated, below 1: how many fresh chips would have to pass for it?
    failure_rate: float = 0.001
    # with which the statements about chips hold, each column for all levels of one run and seed together
    confidence: float = 0.95
    # what moves in boxes and on chips: weights | all | patterns of names
    parameters: str = "weights"
    # largest change of an input that the boxes hold too, in the unit of the data
    eps: float = 0.0
    # prove and attack only so many test samples, the first ones
    limit_test: int = 200
    # intervals, backward, backward-full, spiking, spiking-backward; default: all that fit the network, but
    # backward-full and spiking-backward on at most 16,384 units alone, as they take seconds a sample
    bounds: tuple[str, ...] = ()
    # in which the network is computed, and whose rounding is counted in; float64: networks of double precision, from Python only;
    # exact: real numbers
    arithmetic: Literal["float32", "float64", "exact"] = "float32"
    # gradient steps of every start of the attacks in the box
    steps: int = 10
    # random corners of the box from which each sample is attacked
    restarts: int = 1
    # simulated chips a level; the statements are about these, whose number is written down before the first is simulated
    chips: int = 100
    # test samples that each chip is measured on; default: all
    chip_samples: int | None = None
    # seed of chips and attacks; chips of one seed have one number, for more of them take another seed
    chip_seed: int = 0

    def __post_init__(self) -> None:
        require_number("yield_accuracy", self.yield_accuracy, 0, 1)
        _check_statements(self.confidence, self.failure_rate)
        require_number("limit_test", self.limit_test, 1, whole=True)
        remedy = "it is for networks of double precision, from Python only (noiseproof.certify); give float32, or exact for real numbers"
        require(self.arithmetic != "float64", "arithmetic", self.arithmetic, remedy)
        if self.chip_samples is not None:
            require_number("chip_samples", self.chip_samples, self.limit_test, whole=True)
        require(bool(self.box or self.mismatch), "box", self.box, "give at least one half-width, or a level of mismatch")


def _check_statements(confidence: float, failure_rate: float) -> None:
    require_number("confidence", confidence, 0, open_low=True)
    require(confidence < 1, "confidence", confidence, "give a number below 1: nothing is certain about chips not seen")
    require_number("failure_rate", failure_rate, 0, open_low=True)
    require(failure_rate < 1, "failure_rate", failure_rate, "give a fraction below 1, 0.001 for one chip in a thousand")
