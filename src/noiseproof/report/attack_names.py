"""How attacks on inputs are called: "PGD-20", "APGD-100, DLR, surrogate atan 2", "Transfer from standard"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from noiseproof.errors import NoiseproofError
from noiseproof.report.numbers import count, phrases
from noiseproof.report.quantities import level
from noiseproof.report.selecting import Settings, name_in, settings_of
from noiseproof.spelling import read

# the names, in the order in which attacks are listed: what asks least of the network first
_NAMES = {
    "random-noise": "Noise",
    "square": "Square",
    "transfer": "Transfer",
    "fgsm": "FGSM",
    "r-fgsm": "R+FGSM",
    "pgd": "PGD",
    "apgd": "APGD",
    "fab": "FAB",
    "rate-gradient": "Rate gradient",
    "tuned-surrogate": "Tuned surrogate",
    "autoattack": "AutoAttack",
    "ensemble": "Ensemble",
}
_BLACK = ("random-noise", "square", "transfer")
_BY_STEPS = ("pgd", "apgd", "fab")  # named with their number of steps: PGD-20
_SEVERAL = ("autoattack", "ensemble")
# what a spelling leaves out and a label says
_DEFAULTS: dict[str, dict[str, Any]] = {
    "random-noise": {"kind": "corner"},
    "square": {"queries": 5000},
    "pgd": {"steps": 20},
    "apgd": {"steps": 100, "loss": "ce"},
    "fab": {"steps": 100, "targets": 9},
    "rate-gradient": {"steps": 20, "rule": "rga"},
}
_LOSSES = {"ce": "CE", "dlr": "DLR", "kl": "KL"}
_USUAL_LOSS = {"apgd": "", "square": "margin", "fab": "margin"}
_NOISES = {"corner": "corners"}


@dataclass(frozen=True)
class Kind:
    """An attack on inputs without its ε and norm; `given` are its settings as they were recorded."""

    name: str
    settings: Settings
    given: Mapping[str, Any] = field(compare=False, repr=False)

    @property
    def title(self) -> str:
        """What is read first: "PGD-20", "APGD-T-100"."""
        base = _NAMES.get(self.name, self.name)
        if self.number("targets") and not self.several:
            base += "-T"
        return f"{base}-{self.number('steps'):.0f}" if self.number("steps") and self.name in _BY_STEPS else base

    @property
    def detail(self) -> str:
        """What tells it from others of its title: "DLR, surrogate atan 2"; empty where there is nothing to say."""
        return ", ".join(filter(None, self._details()))

    @property
    def label(self) -> str:
        """All in one line."""
        return f"{self.title}, {self.detail}" if self.detail else self.title

    @property
    def words(self) -> str:
        """In a sentence: "the ensemble", "AutoAttack"."""
        return "the ensemble" if self.name == "ensemble" else self.label

    @property
    def noise(self) -> bool:
        return self.name == "random-noise"

    @property
    def confined(self) -> bool:
        """Whether it stays within one ε: not Gaussian noise, of which ε is a standard deviation, nor where every sample has its own."""
        return not (self.noise and self.given.get("kind") == "gaussian") and "eps_per_sample" not in self.given

    @property
    def black(self) -> bool:
        """Whether it sees no gradient of the network."""
        return self.name in _BLACK

    @property
    def several(self) -> bool:
        """Whether it is the worst case over several attacks, sample by sample."""
        return self.name in _SEVERAL

    @property
    def order(self) -> tuple[Any, ...]:
        place = list(_NAMES).index(self.name) if self.name in _NAMES else len(_NAMES) - len(_SEVERAL) - 0.5
        return place, self.number("draws"), self.number("steps"), self.label

    def number(self, setting: str) -> float:
        """Return a setting that is a number, 0 where it has none."""
        try:
            return float(self.given.get(setting, 0))
        except (TypeError, ValueError):
            return 0.0

    def _details(self) -> list[str]:
        text = {k: str(v) for k, v in self.given.items()}
        loss, steps = text.get("loss", _USUAL_LOSS.get(self.name, "ce")), self.number("steps")
        if self.several:
            return [text.get("version", "").replace("standard", ""), _source(text)]
        return [
            _NOISES.get(text.get("kind", ""), text.get("kind", "")),
            text.get("rule", "").upper(),
            # what is usual goes without saying; of APGD there are two usual ones
            _LOSSES.get(loss, loss) if loss != _USUAL_LOSS.get(self.name, "ce") else "",
            _source(text),
            f"surrogate {_surrogate(self.given)}" if text.get("surrogate") else "",
            f"momentum {level(self.number('momentum'))}" if self.number("momentum") else "",
            "at the expected input" if text.get("expected") == "True" else "",
            *(count(int(n), noun) for noun in ("restart", "draw") if (n := self.number(f"{noun}s")) > 1),
            count(int(steps), "step") if steps and self.name not in _BY_STEPS else "",
            count(int(n), "query", "queries") if (n := self.number("queries")) else "",
            f"EOT {self.number('eot'):.0f}" if self.number("eot") > 1 else "",
            "an ε for every sample" if "eps_per_sample" in text else "",
        ]


def kind_of(perturbation: Mapping[str, Any]) -> Kind:
    """Return which attack a record is about; the member of an ensemble that it may name is no part of it.

    Nor is the identity of a transfer's source, of which the label is shown.
    """
    given = {k: v for k, v in perturbation.items() if k not in ("name", "eps", "norm", "member", "identity")}
    return Kind(name_in(perturbation), settings_of(given), given)


def member_label(spelled: str) -> str:
    """Return the label of a member that is spelled in one line, without what is at its default; where that cannot be read, the line itself.

    Example:
        >>> member_label("apgd(steps=20, loss=dlr, surrogate=atan)")
        'APGD-20, DLR, surrogate atan'
    """
    try:
        ((step,),) = read(spelled, "member")
    except (NoiseproofError, ValueError):
        return spelled
    return kind_of({"name": step[0], **_DEFAULTS.get(step[0], {}), **step[1]}).label


def distinct_labels(kinds: Sequence[Kind]) -> dict[Kind, str]:
    """Return one label per attack; to those of one label the settings that differ are added."""
    found = {}
    for kind in kinds:
        namesakes = [dict(other.settings) for other in kinds if other.label == kind.label]
        different = [k for k, _ in kind.settings if len({other.get(k) for other in namesakes}) > 1]
        added = phrases((k, dict(kind.settings)[k]) for k in different)
        found[kind] = f"{kind.label} ({added})" if added else kind.label
    return found


def _source(text: Mapping[str, str]) -> str:
    return f"from {text['source']}" if text.get("source") else ""


def _surrogate(given: Mapping[str, Any]) -> str:
    """Name and settings, which are recorded as a list and spelled as words: "atan 2"."""
    settings = given.get("surrogate_settings", ())
    words = settings.split() if isinstance(settings, str) else settings if isinstance(settings, list | tuple) else [settings]
    return " ".join([str(given["surrogate"]), *(level(float(word)) for word in words)])
