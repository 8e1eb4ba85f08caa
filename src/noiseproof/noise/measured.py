from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from noiseproof.errors import NoiseproofError, require
from noiseproof.fitting import Model, fit, read_models, write_models
from noiseproof.noise._base import Noise, straight_through
from noiseproof.parameters import Params
from noiseproof.randomness import children, draw_normal


@dataclass(frozen=True)
class Measured(Noise):
    """Noise as it was measured on hardware, by kind of parameter: θ' = g·(θ + √(a² + (ζ·θ)²)·ξ), ξ ~ N(0, 1).

    Give a CSV `file` (columns kind, nominal, measured; see `noiseproof.fitting.fit`), or the fitted numbers as `fits`. A file is
    fitted when the noise is made and becomes `fits`: the numbers, rounded to six digits, are all that the noise is and what every
    record says, so that a file which is moved or changed is not silently another noise. `noiseproof fit` prints them: give a plan or
    a training the numbers.
    The kinds weight and weights stand for all matrices and kernels, every other kind for the parameters of that last name
    (threshold: `lif1.threshold`, `lif2.threshold` …), matrices too; kinds that the network has not are passed over. `kinds` says otherwise.
    Source: Büchel et al., arXiv:2106.05009, Fig. S1 (mismatch measured on neuromorphic hardware, by kind of parameter).

    Raises `NoiseproofError` for a file that cannot be fitted, fits or kinds that cannot be read, a kind without a fit, and when no
    parameter of the network, or one parameter twice, is of a kind that was measured.

    Example:
        >>> noise = Measured(fits="weight: zeta 0.2; threshold: gain 1.1 constant 0.01")
        >>> network = torch.nn.Linear(3, 2)
        >>> chip = noise(dict(network.named_parameters()), torch.Generator().manual_seed(0))
        >>> bool((chip["bias"] == network.bias).all()), bool((chip["weight"] == network.weight).any())
        (True, False)
    """

    # CSV file of measured parameters with the columns kind, nominal, measured
    file: str = ""
    # what was fitted: "weight: gain 1.02 constant 0.003 zeta 0.2; threshold: zeta 0.1"; made from the file
    fits: str = ""
    # which parameters are of which kind: "weight=conv*.weight,weight=fc*.weight,threshold=*threshold"; a kind not named is left out
    kinds: str = ""
    # all | weights | patterns of names: a limit to what the kinds say
    parameters: str = field(default="all", kw_only=True)

    def __post_init__(self) -> None:
        require(bool(self.file) != bool(self.fits), "file", self.file, "give a CSV file, or what was fitted as fits, and not both")
        text = write_models({kind: found.model for kind, found in fit(self.file).items()}) if self.file else self.fits
        object.__setattr__(self, "fits", write_models(read_models(text)))
        object.__setattr__(self, "file", "")
        self._patterns()

    @property
    def models(self) -> dict[str, Model]:
        """The models by kind."""
        return read_models(self.fits)

    @property
    def deterministic(self) -> bool:
        return all(model.constant == model.zeta == 0 for model in self.models.values())

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        raise NoiseproofError("measured noise depends on the kind of a parameter: call it with all of them")

    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        models, kinds = self.models, self.kinds_of(params)
        chosen = self.selected(params)
        streams = children(generator, list(chosen))
        drawn = {name: _draw(models[kinds[name]], p.detach(), streams[name]) for name, p in chosen.items()}
        return params | {name: straight_through(params[name], changed) for name, changed in drawn.items()}

    def selected(self, params: Params) -> Params:
        kinds = self.kinds_of(params)
        chosen = {name: p for name, p in super().selected(params).items() if name in kinds}
        measured = f"none of these is of a kind that was measured; of such a kind: {', '.join(kinds)}"
        require(bool(chosen), "parameters", self.parameters, measured)
        return chosen

    def kinds_of(self, params: Params) -> dict[str, str]:
        """Return the kind of every parameter that has one.

        Raises `NoiseproofError` when none has, or one has two.
        """
        found: dict[str, str] = {}
        for kind, pattern in self._patterns():
            for name in _matching(params, pattern):
                first = found.setdefault(name, kind)
                require(first == kind or not self.kinds, "kinds", self.kinds, f"parameter {name} is of kind {first} and of kind {kind}")
        if not found:
            raise NoiseproofError(
                f"kinds is {self.kinds!r}: no parameter is of a kind that was measured ({', '.join(self.models)}); "
                f"say which are, as in kinds={next(iter(self.models))}=PATTERN; the parameters are {', '.join(params)}"
            )
        return found

    def _patterns(self) -> list[tuple[str, str]]:
        models = self.models
        if not self.kinds:  # the names first, then the matrices that are left
            matrices = ("weight", "weights")
            return [(kind, f".{kind}") for kind in models if kind not in matrices] + [(k, "weights") for k in models if k in matrices]
        pairs = [tuple(map(str.strip, pair.partition("=")[::2])) for pair in self.kinds.split(",")]
        require(all(kind and pattern for kind, pattern in pairs), "kinds", self.kinds, "give kind=pattern,kind=pattern")
        for kind, _ in pairs:
            require(kind in models, "kinds", self.kinds, f"kind {kind!r} was not measured; measured: {', '.join(models)}")
        return [(kind, pattern) for kind, pattern in pairs]

    def describe(self) -> dict[str, Any]:
        """Return name and settings: the numbers, not the file that they came from; what limits nothing is left out."""
        limits = {"kinds": "", "parameters": "all", "file": ""}
        return {key: value for key, value in super().describe().items() if value != limits.get(key)}


def _matching(params: Params, pattern: str) -> list[str]:
    """Return the names of all matrices for "weights", those that end so for ".threshold", else those that the pattern matches."""
    if pattern == "weights":
        return [name for name, p in params.items() if p.ndim >= 2]
    if pattern.startswith("."):
        return [name for name in params if f".{name}".endswith(pattern)]
    return [name for name in params if any(fnmatchcase(m, pattern) for m in (name, name.removeprefix("module.")))]


def _draw(model: Model, theta: Tensor, stream: torch.Generator) -> Tensor:
    std = torch.sqrt(model.constant**2 + (model.zeta * theta) ** 2)
    return draw_normal(theta, stream).mul_(std).add_(theta).mul_(model.gain)


noise = Measured
