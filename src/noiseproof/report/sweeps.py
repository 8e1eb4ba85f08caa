"""Methods that differ in numbers of their training → sweeps over one number, planes over two, and the training noise of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from noiseproof.errors import NoiseproofError
from noiseproof.report.numbers import count
from noiseproof.report.quantities import level, training_quantity
from noiseproof.report.reading import Method, choices, numbers_of, stem_of
from noiseproof.report.selecting import Families, Family, Settings
from noiseproof.spelling import read

# what follows from another setting, where all methods are given the same number of gradient evaluations
_FOLLOWS = "epochs"
_FILLED = 0.6  # of a plane: with fewer cells it is not one
_WITH_FORWARD_NOISE = ("forward-noise", "weight-adversary")
_KIND_OF_ETA = {"weight": ("mismatch", "zeta"), "max": ("max-relative-gaussian", "eta")}


@dataclass(frozen=True)
class Sweep:
    """Methods of one kind that differ in one number of their training."""

    stem: str  # what their labels have in common
    key: str  # the setting, such as "method.beta_rob"
    points: tuple[tuple[float, Method], ...]  # sorted
    shared: tuple[tuple[str, float], ...] = ()  # other numbers that tell this sweep from the next
    follows: bool = False  # whether the epochs differ with it

    @property
    def methods(self) -> tuple[Method, ...]:
        return tuple(method for _, method in self.points)

    @property
    def middle(self) -> Method:
        """What stands for all where there is room for one."""
        return self.methods[(len(self.points) - 1) // 2]

    @property
    def title(self) -> str:
        """As in "β: sweep of β_rob", "β: sweep of β_rob at η = 0.3"."""
        return f"{self.stem}: sweep of {training_quantity(self.key).symbol}" + _at(self.shared)


@dataclass(frozen=True)
class Plane:
    """Methods of one kind that differ in two numbers of their training."""

    stem: str
    row: str
    column: str
    cells: Mapping[tuple[float, float], Method]
    shared: tuple[tuple[str, float], ...] = ()

    @property
    def rows(self) -> tuple[float, ...]:
        return tuple(sorted({row for row, _ in self.cells}))

    @property
    def columns(self) -> tuple[float, ...]:
        return tuple(sorted({column for _, column in self.cells}))

    @property
    def methods(self) -> tuple[Method, ...]:
        return tuple(self.cells[place] for place in sorted(self.cells))

    @property
    def middle(self) -> Method:
        """What stands for all where there is room for one."""
        row, column = (values[(len(values) - 1) // 2] for values in (self.rows, self.columns))
        return self.cells.get((row, column), self.methods[(len(self.cells) - 1) // 2])

    @property
    def title(self) -> str:
        """As in "β: grid of β_rob and ζ_attack at η = 0.3"."""
        names = f"{training_quantity(self.row).symbol} and {training_quantity(self.column).symbol}"
        return f"{self.stem}: grid of {names}" + _at(self.shared)


@dataclass(frozen=True)
class Matched:
    """Methods that differ in the level of their training noise only, which is of the kind that chips were measured under."""

    stem: str
    noise: str
    setting: str
    points: tuple[tuple[float, Method], ...]
    rest: Settings = ()  # other settings of the noise, as far as they were given
    siblings: int = 0  # groups like it that differ in other numbers

    def is_of(self, family: Family) -> bool:
        """Whether chips of a family are what was trained for: the same noise, on the same parameters, with the same settings."""
        assumed = {"parameters": "weights", "per": "channel" if self.noise == "max-relative-gaussian" else "tensor"}
        trained, tested = assumed | dict(self.rest), assumed | dict(family.rest)
        return (self.noise, self.setting) == (family.name, family.setting) and all(
            value == tested.get(key) or (_number(value) is not None and _number(value) == _number(tested.get(key, "")))
            for key, value in trained.items()
        )


def sweeps_and_planes(methods: Sequence[Method]) -> tuple[tuple[Sweep, ...], tuple[Plane, ...]]:
    """Return what the methods of one task sweep: those of one kind whose settings differ in one number, or in two."""
    sweeps: list[Sweep] = []
    planes: list[Plane] = []
    for members in _alike(methods):
        _split(members, (), sweeps, planes)
    return tuple(sweeps), tuple(planes)


def alone(methods: Sequence[Method]) -> tuple[Method, ...]:
    """Return the methods that are in no sweep and no plane: what those are compared with."""
    swept = {m.index for part in sweeps_and_planes(methods) for found in part for m in found.methods}
    return tuple(m for m in methods if m.index not in swept)


def matched(methods: Sequence[Method]) -> tuple[Matched, ...]:
    """Return the groups of methods that differ in nothing but the level of their training noise.

    Of several that differ in other numbers only, as in a grid, the middle one stands for all.
    """
    groups: dict[tuple[str, str, Settings, str], list[tuple[float, Method]]] = {}
    for method in methods:
        noise = training_noise(method)
        if noise is None:
            continue
        name, setting, at, rest = noise
        # its epochs may differ, where all have the same number of gradient evaluations
        others = {k: v for k, v in choices(method.networks[0]).items() if k not in ("method.eta", "method.noise", _FOLLOWS)}
        groups.setdefault((name, setting, rest, str(sorted(others.items()))), []).append((at, method))
    found: dict[tuple[str, str, str, Settings], list[Matched]] = {}
    for (name, setting, rest, _), points in groups.items():
        if len({at for at, _ in points if at > 0}) > 1 and len({at for at, _ in points}) == len(points):
            ordered = tuple(sorted(points, key=lambda point: point[0]))
            group = Matched(_stem([m for _, m in ordered]), name, setting, ordered, rest)
            found.setdefault((group.stem, name, setting, rest), []).append(group)
    return tuple(replace(alike[(len(alike) - 1) // 2], siblings=len(alike) - 1) for alike in found.values())


def training_noise(method: Method) -> tuple[str, str, float, Settings] | None:
    """Return the noise on the weights in training: its name, the setting that is its level, the level, and its other settings."""
    chosen = choices(method.networks[0])
    if "method.noise" in chosen:
        return _spelled(chosen["method.noise"])
    if "method.eta" not in chosen or ("method.relative_to" not in chosen and method.kind not in _WITH_FORWARD_NOISE):
        return None
    name, setting = _KIND_OF_ETA.get(chosen.get("method.relative_to", "weight"), ("", ""))
    at = numbers_of(method.networks[0]).get("method.eta")
    return None if at is None or not name else (name, setting, at, (("parameters", chosen.get("method.parameters", "weights")),))


def setting_text(key: str, value: float) -> str:
    """A setting of a training: "β_rob = 0.1", "3 steps"."""
    symbol = training_quantity(key).symbol
    return count(int(value), symbol[:-1]) if symbol in ("steps", "epochs") else f"{symbol} = {level(value)}"


def _at(shared: Sequence[tuple[str, float]]) -> str:
    return " at " + ", ".join(setting_text(key, value) for key, value in shared) if shared else ""


def _spelled(text: str) -> tuple[str, str, float, Settings] | None:
    """Return the level of a noise that is spelled out; None for a composition, whose level is not one number."""
    try:
        ((name, settings),) = read(text, "noise")[0]
    except (NoiseproofError, ValueError):
        return None
    numbers = {k: float(v) for k, v in settings.items() if _number(str(v)) is not None and not isinstance(v, bool)}
    axes = Families([{"name": name, **numbers}]).axes({"name": name, **numbers})
    if not axes:
        return None
    return name, axes[0], numbers[axes[0]], tuple(sorted((k, str(v)) for k, v in settings.items() if k != axes[0]))


def _alike(methods: Sequence[Method]) -> list[list[Method]]:
    """Return the methods of one kind that have the same settings, the same ones in words, together."""
    groups: dict[str, list[Method]] = {}
    for method in methods:
        chosen = choices(method.networks[0])
        words = {k: v for k, v in chosen.items() if k not in numbers_of(method.networks[0])}
        groups.setdefault(str((method.kind, sorted(chosen), sorted(words.items()))), []).append(method)
    return [members for members in groups.values() if len(members) > 1]


def _split(members: Sequence[Method], shared: tuple[tuple[str, float], ...], sweeps: list[Sweep], planes: list[Plane]) -> None:
    """Add what `members` are: a sweep, a plane, or, where more than two numbers differ, several of them."""
    settings = {m.index: numbers_of(m.networks[0]) for m in members}
    values = {k: [settings[m.index][k] for m in members] for k in settings[members[0].index]}
    differ = sorted((k for k, v in values.items() if len(set(v)) > 1), key=lambda k: (k.rpartition(".")[0] != "method", k))
    follows = _FOLLOWS in differ and len(differ) > 1 and _determined(values, [k for k in differ if k != _FOLLOWS])
    differ = [k for k in differ if not (follows and k == _FOLLOWS)]
    if len(differ) == 1:
        points = sorted(zip(values[differ[0]], members, strict=True), key=lambda point: point[0])
        if len(members) > 2 or len({stem_of(m.label) for m in members}) == 1:
            sweeps.append(Sweep(_stem(members), differ[0], tuple(points), shared, follows))
        return
    if len(differ) == 2:
        row, column = sorted(differ, key=lambda k: len(set(values[k])))
        cells = {(r, c): m for r, c, m in zip(values[row], values[column], members, strict=True)}
        if len(cells) > 3 and len(cells) >= _FILLED * len(set(values[row])) * len(set(values[column])):
            planes.append(Plane(_stem(members), row, column, cells, shared))
            return
    if differ:
        by = min(differ, key=lambda k: len(set(values[k])))
        for value in sorted(set(values[by])):
            part = [m for m, v in zip(members, values[by], strict=True) if v == value]
            if len(part) > 1:
                _split(part, (*shared, (by, value)), sweeps, planes)


def _determined(values: Mapping[str, Sequence[float]], by: Sequence[str]) -> bool:
    """Return whether the epochs are the same wherever the settings `by` are."""
    places = list(zip(*(values[k] for k in by), strict=True))
    return len(set(places)) == len(set(zip(places, values[_FOLLOWS], strict=True)))


def _stem(members: Sequence[Method]) -> str:
    starts = {stem_of(m.label) for m in members}
    return starts.pop() if len(starts) == 1 else members[0].kind.replace("-", " ")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
