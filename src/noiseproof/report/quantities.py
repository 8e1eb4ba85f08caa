"""Quantities that noises and trainings are swept over: their symbols, how a value is written, and what stands at an axis."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from noiseproof.numbers import eps_text

MINUS = "\N{MINUS SIGN}"
# seconds; a year has 365 days
_SPANS = (("y", 365 * 86400.0), ("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
_OF_STEP = re.compile(r"(.*) of step (\d+)")


@dataclass(frozen=True)
class Quantity:
    """One setting: its symbol, and what stands at an axis, where {} stands for the noise."""

    symbol: str
    axis: str


# How strong a noise is. The order decides which of several counts as the level, where the records do not say it.
LEVELS = {
    "zeta": Quantity("ζ", "{} ζ (one standard deviation, relative)"),
    "sigma": Quantity("σ", "{} σ (one standard deviation)"),
    "std": Quantity("s", "{} s (one standard deviation, unit of the weights)"),
    "eta": Quantity("η", "η (one standard deviation, relative to the largest weight)"),
    "epsilon": Quantity("ε", "size ε of the set"),
    "time": Quantity("t", "time since programming"),
    "p": Quantity("p", "probability p"),
    "stuck_at_zero": Quantity("p_zero", "probability p_zero of a device stuck at 0"),
    "stuck_at_max": Quantity("p_max", "probability p_max of a device stuck at its largest conductance"),
    "kelvin": Quantity("ΔT", "ΔT above the nominal temperature, K"),
    "bits": Quantity("bits", "bits"),
    "eps": Quantity("ε", "ε: largest change of an input, in the unit of the data"),
}
_CLEAN_AT_ZERO = {
    "mismatch": "zeta",
    "uniform": "zeta",
    "log-normal": "sigma",
    "gaussian": "std",
    "max-relative-gaussian": "eta",
    "temperature": "kelvin",
}
_STUCK = ("stuck_at_zero", "stuck_at_max")
# How a network was trained. The same names mean something else in a noise.
TRAINING = {
    "beta_rob": Quantity("β_rob", "weight β_rob of the robustness loss"),
    "zeta_attack": Quantity("ζ_attack", "half-width ζ_attack of the attacked set"),
    "zeta_const": Quantity("c", "constant part c of the attacked set"),
    "eta": Quantity("η", "training noise η (one standard deviation)"),
    "gamma": Quantity("γ", "size γ of the perturbation"),
    "epsilon": Quantity("ε", "radius ε of the perturbation"),
    "rho": Quantity("ρ", "radius ρ of the perturbation"),
    "eps": Quantity("ε_input", "size ε_input of the attack on the inputs"),
    "p": Quantity("p", "probability p"),
    "steps": Quantity("steps", "gradient steps of the search"),
}


def quantity(setting: str) -> Quantity:
    """Return what is known of a setting of a noise; one of a step of a composition is that of the step."""
    base, step = parts(setting)
    known = LEVELS.get(base) or _plain(base.replace("_", " "))
    return Quantity(f"{known.symbol} of step {step}", f"{known.axis}, step {step}") if step else known


def clean_at_zero(noise: str, setting: str, others: Mapping[str, str]) -> bool:
    """Whether a noise at level 0 of a setting surely is the network as it is; `others`: its other settings.

    Not a composition, whose other steps act there, nor bit errors, whose weights are rounded, nor a time or a number of bits.
    """
    if noise == "stuck" and setting in _STUCK:
        other = _STUCK[1 - _STUCK.index(setting)]
        return float(others.get(other, 1)) == 0
    return _CLEAN_AT_ZERO.get(noise) == setting


def training_quantity(key: str) -> Quantity:
    """Return what is known of a setting of an experiment, such as "method.beta_rob" or "epochs"."""
    owner, _, name = key.rpartition(".")
    known = TRAINING.get(name) if owner == "method" else None
    return known or _plain((name if owner in ("", "method") else key).replace("_", " ").replace(".", " "))


def _plain(words: str) -> Quantity:
    return Quantity(words, words)


def training_name(key: str) -> str:
    """Return the symbol of a setting of an experiment, or its name as it is set: "β_rob", "batch_size"."""
    owner, _, name = key.rpartition(".")
    return TRAINING[name].symbol if owner == "method" and name in TRAINING else key.removeprefix("method.")


def parts(setting: str) -> tuple[str, str]:
    """ "zeta of step 2" → ("zeta", "2"); "zeta" → ("zeta", "")."""
    found = _OF_STEP.fullmatch(setting)
    return (found[1], found[2]) if found else (setting, "")


def rank(setting: str) -> tuple[int, str]:
    """Return where a setting stands among those that say how strong a noise is; sorts the unknown ones to the end."""
    base = parts(setting)[0]
    return (list(LEVELS).index(base) if base in LEVELS else len(LEVELS), setting)


def strongest(settings: Iterable[str]) -> str:
    """Return the setting that counts as the level, empty where there is none."""
    return min(settings, key=rank, default="")


def level(value: float) -> str:
    """A noise level or a setting: 0.3 → "0.3", 1e-05 → "1e-05", 54000 → "54000"."""
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.0f}".replace("-", MINUS)
    return f"{value:.4g}".replace("-", MINUS) if value < 0 else f"{value:.4g}"


def span(seconds: float) -> str:
    """A time: 25 → "25 s", 3600 → "1 h", 2592000 → "30 d", 31536000 → "1 y"."""
    unit, size = next(((unit, size) for unit, size in _SPANS if seconds >= size), _SPANS[-1])
    return f"{seconds / size:.3g} {unit}"


def value_text(setting: str, value: float) -> str:
    """A level alone, as at a tick: "1 h", "8", "0.3", "8/255"."""
    base = parts(setting)[0]
    return span(value) if base == "time" else eps_text(value) if base == "eps" else level(value)


def level_text(setting: str, value: float) -> str:
    """A level with its symbol: "ζ = 0.3", "t = 1 h", "8 bits"."""
    if not setting:
        return "on chips"
    base, step = parts(setting)
    if base == "bits":
        return f"{level(value)} bits" + (f" in step {step}" if step else "")
    return f"{quantity(setting).symbol} = {value_text(setting, value)}"
