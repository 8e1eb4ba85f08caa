"""Run folders → methods with their networks: who was measured, before any number."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import tomli_w

from noiseproof.records import Record
from noiseproof.report.quantities import training_name

# Settings that do not make another method: its label, its seed, and what was only measured
_NOT_THE_METHOD = {"name", "seed", "limit_test", "track_attack", "track_noise", "track_chips", "track_perturbation", "started_from"}

COLOURS = 8  # of methods: --series-0 … --series-7 in report.html


class Run(Protocol):
    """What a report is made from: a `RunFolder`, or an evaluation that was never saved."""

    def settings(self) -> Mapping[str, Any]: ...
    def records(self) -> Sequence[Record]: ...
    def environment(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Network:
    """One trained network: its experiment, where it came from, and all that was measured on it."""

    identity: str  # of the experiment that made it; where nothing was measured, something that no other has
    folder: str  # empty for one that was never saved
    seed: str
    settings: Mapping[str, Any]
    toml: str
    environment: Mapping[str, Any]
    records: tuple[Record, ...]


@dataclass(frozen=True, eq=False)
class Method:
    """One way of training, with the networks that it made from several seeds."""

    label: str
    kind: str  # the method's own name, such as weight-adversary
    data: str
    index: int  # place in the order given
    look: int  # fixes colour, dash and marker: those of one name have it in common on all tasks
    networks: tuple[Network, ...]


def read(runs: Sequence[Run]) -> tuple[Method, ...]:
    """Read `runs` into methods, in the order given; runs that differ in no setting but the seed are one method.

    Two folders of one experiment are one network: a copy is no second training.
    """
    networks = _without_copies([_network(run, str(place)) for place, run in enumerate(runs)])
    groups: dict[tuple[str, str], list[Network]] = {}
    for network in networks:
        label, chosen = _label(network), choices(network)
        alike = (key for key in groups if key[0] == label and _agree(json.loads(key[1]), chosen))
        groups.setdefault(next(alike, (label, json.dumps(chosen, sort_keys=True))), []).append(network)
    labels = _distinct_labels(groups)
    looks = _looks(labels)
    return tuple(
        Method(label, _text(members[0].settings, "method", "name"), _data(members[0]), index, looks[label], tuple(members))
        for index, (label, members) in enumerate(zip(labels, groups.values(), strict=True))
    )


def tasks(methods: Sequence[Method]) -> tuple[tuple[str, tuple[Method, ...]], ...]:
    """Return the methods by the data that they were trained for, in the order given: only those of one task are compared."""
    found: dict[str, list[Method]] = {}
    for method in methods:
        found.setdefault(method.data, []).append(method)
    return tuple((data, tuple(members)) for data, members in found.items())


def stem_of(label: str) -> str:
    """Return what the labels of a sweep have in common: "β, beta_rob 0.1" → "β"."""
    return re.split(r",| \(", label)[0].strip() or label


def _looks(labels: Sequence[str]) -> dict[str, int]:
    """Return a number for each label, that of its colour for those of one stem: a sweep has one colour and several markers."""
    looks: dict[str, int] = {}
    stems = list(dict.fromkeys(stem_of(label) for label in labels))
    for label in dict.fromkeys(labels):
        first = stems.index(stem_of(label)) % COLOURS
        looks[label] = next(look for look in itertools.count(first, COLOURS) if look not in looks.values())
    return looks


def baseline_of(method: Method, methods: Sequence[Method]) -> Method | None:
    """Return what `method` is compared with: standard training on the same data, else the first method on it; None for that one itself."""
    peers = [m for m in methods if m.data == method.data]
    baseline = next((m for m in peers if m.kind == "standard"), peers[0])
    return None if baseline is method else baseline


def _network(run: Run, place: str) -> Network:
    settings, records, folder = run.settings(), tuple(run.records()), str(getattr(run, "path", ""))
    return Network(
        identity=records[0].run if records else folder or place,
        folder=folder,
        seed=_text(settings, "seed"),
        settings=settings,
        toml=tomli_w.dumps(settings),
        environment=run.environment(),
        records=records,
    )


def _without_copies(networks: Sequence[Network]) -> list[Network]:
    kept: dict[str, Network] = {}
    for network in networks:
        if first := kept.get(network.identity):
            both = {record.key: record for record in (*first.records, *network.records)}
            network = replace(first, records=tuple(both.values()))
        kept[network.identity] = network
    return list(kept.values())


def _label(network: Network) -> str:
    return _text(network.settings, "name").strip() or _text(network.settings, "method", "name") or "unnamed"


def _data(network: Network) -> str:
    return _text(network.settings, "data")


def _text(settings: Mapping[str, Any], *keys: str) -> str:
    """Return the setting at `keys` as text, empty where it is missing."""
    value: Any = settings
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


def _agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return whether two networks were made in one way: a setting of method or network that an older version had not is no difference."""
    keys = one.keys() & other.keys() | {key for key in one.keys() ^ other.keys() if not key.startswith(("method.", "network."))}
    return one.get("method.name") == other.get("method.name") and all(one.get(key) == other.get(key) for key in keys)


def choices(network: Network) -> dict[str, str]:
    """Return the settings that make the method, flat: {"epochs": "8", "method.eta": "0.3"}.

    Fine-tuning from the same method with another seed is the same method.
    """
    chosen = {key: str(value) for key, value in _flat(_choices(network)).items()}
    if "start_from" in chosen:
        chosen["start_from"] = re.sub(r"seed[-_]?\d+", "seed", chosen["start_from"])
    return chosen


def numbers_of(network: Network) -> dict[str, float]:
    """Return those of the settings that make the method which are numbers, flat."""
    return {k: float(v) for k, v in _flat(_choices(network)).items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _choices(network: Network) -> dict[str, Any]:
    return {k: v for k, v in network.settings.items() if k not in _NOT_THE_METHOD}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _distinct_labels(groups: Mapping[tuple[str, str], Sequence[Network]]) -> list[str]:
    """Return one label per group: where two methods of one task were given the same name, the settings that differ are added."""
    labels = []
    for (label, _), members in groups.items():
        task = _data(members[0])
        namesakes = [choices(other[0]) for (name, _), other in groups.items() if name == label and _data(other[0]) == task]
        own = choices(members[0])
        different = [key for key in sorted(set().union(*namesakes)) if len({other.get(key) for other in namesakes}) > 1]
        added = ", ".join(f"{training_name(key)} = {own.get(key, 'not set')}" for key in different)
        labels.append(f"{label} ({added})" if added else label)
    return labels
