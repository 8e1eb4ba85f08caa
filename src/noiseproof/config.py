"""Experiment: frozen dataclasses ⇄ TOML ⇄ command line, checked before any work starts."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import tomli_w
import torch
from torch import Tensor

from noiseproof import _names, spelling
from noiseproof._declared import declared
from noiseproof._typed import convert
from noiseproof.attacks import Attack
from noiseproof.errors import NoiseproofError, require, require_number, unknown
from noiseproof.methods import Method, Standard
from noiseproof.networks import CNN, Architecture
from noiseproof.noise import Noise, compose
from noiseproof.projections import Projection

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, whatever the network, the data and the method are.

    Raises `NoiseproofError` for a value out of range.
    """

    # passes over the training data
    epochs: int = 10
    # samples of one step
    batch_size: int = 100
    # an optimiser of torch.optim
    optimizer: str = "Adam"
    # learning rate of the first epoch
    learning_rate: float = 1e-3
    # these three are passed on to the optimiser where they are not zero
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    # constant, steps (see decay_at) or cosine
    schedule: Literal["constant", "steps", "cosine"] = "constant"
    # shares of the epochs after which the learning rate is multiplied by decay_factor
    decay_at: tuple[float, ...] = ()
    # what the learning rate is multiplied by at each of them
    decay_factor: float = 0.1
    # seed of weights, order, noise and held-out samples
    seed: int = 0
    # arithmetic of the forward pass in training
    precision: Literal["float32", "bfloat16"] = "float32"
    # weight of a penalty on firing rates, the sum over all units of (rate - rate_target)²; spiking networks
    rate_penalty: float = 0.0
    # spikes a step that a unit should have
    rate_target: float = 0.01
    # half-width of a weight attack on validation data after every epoch, all parameters; 0: none
    track_attack: float = 0.0
    # noises under which validation accuracy is followed, such as "gaussian(std=0.1)": the mean of track_chips chips after every epoch
    track_noise: tuple[str, ...] = ()
    # simulated chips of each of them
    track_chips: int = 4
    # attacks or noise on inputs whose MS-MPPD in the last layer of neurons is followed, such as "r-fgsm(eps=4/255)"; spiking networks
    track_perturbation: tuple[str, ...] = ()
    # projections after every step, such as "clip(k=2)"
    after_step: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_number("epochs", self.epochs, 1, whole=True)
        require_number("batch_size", self.batch_size, 1, whole=True)
        require_number("learning_rate", self.learning_rate, 0, open_low=True)
        require_number("momentum", self.momentum, 0, 1)
        require_number("weight_decay", self.weight_decay, 0)
        require_number("decay_factor", self.decay_factor, 0, 1, open_low=True)
        require_number("seed", self.seed, 0, whole=True)
        require_number("track_attack", self.track_attack, 0)
        require_number("track_chips", self.track_chips, 1, whole=True)
        require_number("rate_penalty", self.rate_penalty, 0)
        require_number("rate_target", self.rate_target, 0, 1)
        require(all(0 < share < 1 for share in self.decay_at), "decay_at", self.decay_at, "give shares of the epochs between 0 and 1")
        if bool(self.decay_at) != (self.schedule == "steps"):
            raise NoiseproofError(
                f"decay_at is {self.decay_at!r} and schedule is {self.schedule!r}: schedule steps needs it, no other takes it"
            )
        self.make_optimizer([torch.zeros(1, requires_grad=True)])
        self.projections()
        self.tracked_noises()
        self.tracked_perturbations()

    def tracked_perturbations(self) -> list[Attack]:
        """Return what `track_perturbation` spells.

        Raises `NoiseproofError` when it spells something else.
        """
        return [attack for text in self.track_perturbation for attack in spelled_attacks(text, "track_perturbation")]

    def tracked_noises(self) -> list[Noise]:
        """Return what `track_noise` spells.

        Raises `NoiseproofError` when it spells something else.
        """
        return [noise for text in self.track_noise for noise in spelled_noises(text, "track_noise")]

    def projections(self) -> list[Projection]:
        """Return what `after_step` spells.

        Raises `NoiseproofError` when it spells something else.
        """
        found = [choice for text in self.after_step for choice in spelled("projection", text, "after_step")]
        require(all(len(steps) == 1 for steps in found), "after_step", self.after_step, "give one projection an entry")
        return [steps[0] for steps in found]

    def learning_rate_at(self, epoch: int) -> float:
        """Return the learning rate of `epoch` (from 0)."""
        return self.learning_rate * self.schedule_at(epoch)

    def schedule_at(self, epoch: int) -> float:
        """Return what the schedule multiplies the learning rate by in `epoch` (from 0)."""
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        passed = sum(epoch + 1e-9 >= share * self.epochs for share in self.decay_at)
        return self.decay_factor**passed

    def make_optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """Return the optimiser for `parameters`.

        Raises `NoiseproofError` when torch.optim has none of that name, or it does not take the settings.
        """
        known = {name.lower(): cls for name, cls in vars(torch.optim).items() if isinstance(cls, type) and name not in _NOT_PER_STEP}
        if self.optimizer.lower() not in known:
            raise unknown("optimizer", self.optimizer, [cls.__name__ for cls in known.values()])
        kind = known[self.optimizer.lower()]
        wanted = {"momentum": self.momentum, "nesterov": self.nesterov, "weight_decay": self.weight_decay}
        # a zero is passed on too where it can be: AdamW's own weight decay is not zero
        takes = inspect.signature(kind).parameters
        try:
            return kind(parameters, lr=self.learning_rate, **{k: v for k, v in wanted.items() if v or k in takes})
        except (TypeError, ValueError) as error:
            raise NoiseproofError(f"optimizer is {self.optimizer!r}: {error}") from None


# the base class, one that needs a closure, one that needs sparse gradients
_NOT_PER_STEP = {"Optimizer", "LBFGS", "SparseAdam"}


@dataclass(frozen=True)
class Experiment(Recipe):
    """All that decides what a trained network will be; two equal experiments give the same network.

    Raises `NoiseproofError` for a value out of range or a name that does not exist, with the nearest name that does.

    Example:
        >>> Experiment(data="digits", epochs=2) == from_dict(to_dict(Experiment(data="digits", epochs=2)))
        True
    """

    # data set: digits, fashion-mnist …
    data: str = "digits"
    # network, with its own flags
    network: Architecture = field(default_factory=CNN)
    # training method, with its own flags
    method: Method = field(default_factory=Standard)
    # label in tables and reports; runs that differ only in the seed share it
    name: str = ""
    # folder of a run whose weights are the first ones, converted where it is plain and this network spiking; in a plan a training's name
    start_from: str = ""
    # identity of that run, filled in
    started_from: str = ""
    # training samples by which thresholds are set where that run's network is plain and this one spiking: it is converted
    calibration: int = 500
    # part of the training split that is held out for validation (unless one is published): a share below 1, else a number of samples
    validation: float = 0.1
    # augmentation as published for the data set: copies that are rotated by up to 10 degrees and flipped or not; for CIFAR crop and flip
    augment: bool = False
    # side of the square that augmentation blanks in every image, for CIFAR; 0: none
    cutout: int = 0
    # use only so many training samples
    limit_train: int | None = None
    # use only so many test samples
    limit_test: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _names.find("data", "data_set", self.data)
        require(isinstance(self.network, Architecture), "network", self.network, "give an Architecture, such as noiseproof.networks.CNN()")
        require(isinstance(self.method, Method), "method", self.method, "give a Method, such as noiseproof.methods.Standard()")
        require_number("validation", self.validation, 0, open_low=True)
        require_number("cutout", self.cutout, 0, whole=True)
        require_number("calibration", self.calibration, 1, whole=True)
        for name in ("limit_train", "limit_test"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), 1, whole=True)

    @property
    def identity(self) -> str:
        """Return the hash of all that decides the result; the label does not.

        Settings at their defaults are left out, so that a setting which a later version adds does not make old runs strangers.
        """
        return identity_of(_chosen(self))

    @property
    def label(self) -> str:
        """Return `name`, or the method's own name where there is none."""
        return self.name or part_to_dict("method", self.method)["name"]


def identity_of(values: Mapping[str, Any]) -> str:
    """Return the hash of an experiment written as a dict; its label does not count, nor where a run lies from which it started."""
    relevant = {key: value for key, value in values.items() if key not in ("name", "start_from")}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]


def _chosen(value: Any) -> dict[str, Any]:
    """Return the settings that differ from their defaults, with the names of network and method."""
    made: dict[str, Any] = {}
    for part, item in declared(value):
        if isinstance(item, Architecture | Method):
            made[part.name] = {"name": _names.name_of(_PACKAGES[_kind_of(item)], type(item)), **_chosen(item)}
        elif item != part.default:
            made[part.name] = list(item) if isinstance(item, tuple) else item
    return made


def to_dict(value: Any) -> dict[str, Any]:
    """Return a dataclass as a dict for TOML: named parts carry their name, None is left out."""
    made: dict[str, Any] = {}
    for part, item in declared(value):
        if isinstance(item, Architecture | Method):
            made[part.name] = part_to_dict(_kind_of(item), item)
        elif item is not None:
            made[part.name] = list(item) if isinstance(item, tuple) else item
    return made


def part_to_dict(field_name: str, part: Any) -> dict[str, Any]:
    """Return a method or a network with its name and its settings."""
    return {"name": _names.name_of(_PACKAGES[field_name], type(part)), **to_dict(part)}


def from_dict(values: Mapping[str, Any]) -> Experiment:
    """Return the experiment that `values` (as in `experiment.toml`) describes; what is not said has its default.

    Raises `NoiseproofError` naming the field.
    """
    return build(Experiment, values, "experiment")


def build(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """Return `cls` (a dataclass) from plain values, each checked against the field's type; fractions may be text, "8/255".

    Raises `NoiseproofError` for an unknown field or a value of the wrong type.
    """
    hints = get_type_hints(cls)
    made = {}
    for key, value in values.items():
        if key not in {f.name for f in fields(cls)}:
            raise unknown(f"field of {where}", key, [f.name for f in fields(cls)])
        kind = hints[key]
        made[key] = _named_part(_NAMED[kind], key, value) if kind in _NAMED else convert(kind, value, key)
    return cls(**made)


def dumps(values: Mapping[str, Any]) -> str:
    """Return plain values as TOML; `from_dict(tomllib.loads(dumps(to_dict(experiment))))` is the experiment."""
    return tomli_w.dumps(values)


def load_toml(path: Path) -> dict[str, Any]:
    """Return the values of a TOML file.

    Raises `NoiseproofError` when the file is missing or is not TOML, with the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NoiseproofError(f"cannot read {path}: {error.strerror if isinstance(error, OSError) else error}; give a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise NoiseproofError(f"{path} is not valid TOML: {error}") from None


def preset(name: str) -> dict[str, Any]:
    """Return the values of a published schedule (`presets/NAME.toml`): optimiser, epochs, learning rates, batch size.

    Raises `NoiseproofError` for an unknown name.
    """
    known = sorted(path.stem for path in PRESETS.glob("*.toml"))
    if name not in known:
        raise unknown("preset", name, known)
    return load_toml(PRESETS / f"{name}.toml")


_PACKAGES = {"network": "networks", "method": "methods", "noise": "noise", "projection": "projections", "attack": "attacks"}
_BASES: dict[str, type] = {"network": Architecture, "method": Method, "noise": Noise, "projection": Projection, "attack": Attack}

# fields of these types hold a part by name, whatever the field is called: a method may hold others
_NAMED: dict[type, str] = {Architecture: "network", Method: "method"}


def part_class(field_name: str, name: str) -> type:
    """Return the class that a name stands for: `--method NAME`, `--network NAME`, `--noise "NAME(…)"`, `--after-step "NAME(…)"`.

    Raises `NoiseproofError` when it does not exist, or is not of that kind.
    """
    base = _BASES[field_name]
    found = _names.find(_PACKAGES[field_name], field_name, name)
    require(
        isinstance(found, type) and issubclass(found, base) and is_dataclass(found),
        field_name,
        name,
        f"this is no dataclass derived from {base.__name__}",
    )
    return found


def spelled(kind: str, text: str, field_name: str) -> list[tuple[Any, ...]]:
    """Return the noises or projections that `text` spells (see `noiseproof.spelling`): one tuple of steps for each value that is swept.

    A list is one value, or several with blanks between them: "pgd(surrogate=triangle, surrogate_settings="0.3 1.0")".

    Raises `NoiseproofError` for a name or a setting that does not exist, or a value out of range.
    """

    def part(name: str, settings: Mapping[str, Any]) -> Any:
        cls = part_class(kind, name)
        lists = {key for key, of in get_type_hints(cls).items() if get_origin(of) is tuple}
        return build(cls, {key: _words(value) if key in lists else value for key, value in settings.items()}, name)

    return [tuple(part(name, settings) for name, settings in steps) for steps in spelling.read(text, field_name)]


def _words(value: Any) -> list[Any]:
    return value.split() if isinstance(value, str) else [value]


def spelled_attacks(text: str, field_name: str) -> list[Attack]:
    """Return the attacks on inputs that `text` spells, one for each value that is swept: "pgd(eps=2/255|8/255, steps=20)".

    Raises `NoiseproofError` as `spelled` does, and for several attacks in a row.
    """
    found = spelled("attack", text, field_name)
    require(all(len(steps) == 1 for steps in found), field_name, text, "give one attack, without >")
    return [steps[0] for steps in found]


def spelled_noises(text: str, field_name: str) -> list[Noise]:
    """Return the noises that `text` spells, one for each value that is swept; several steps make one composed noise.

    Raises `NoiseproofError` as `spelled` does.
    """
    return [compose(steps) for steps in spelled("noise", text, field_name)]


def method_fields(cls: type) -> list[str]:
    """Return the fields of a dataclass that hold a method."""
    return [name for name, kind in get_type_hints(cls).items() if kind is Method]


def _kind_of(part: Architecture | Method) -> str:
    return next(kind for base, kind in _NAMED.items() if isinstance(part, base))


def _named_part(kind: str, field_name: str, value: Any) -> Any:
    """Return a method or a network from its name, or from a table with its name and its settings."""
    if isinstance(value, Architecture | Method):
        return value
    table = {"name": value} if isinstance(value, str) else dict(value)
    require(isinstance(table.get("name"), str), field_name, value, 'give a name, or a table with name = "…"')
    return build(part_class(kind, table.pop("name")), table, field_name)
