"""Run folders → methods with their networks: who was measured, before any number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import tomli_w

from noiseproof.records import Record

# Settings that do not make another method: its label, its seed, and what was only measured
_NOT_THE_METHOD = {"name", "seed", "limit_test", "track_attack"}


class Run(Protocol):
    """What a report is made from: a `RunFolder`, or an evaluation that was never saved."""

    def settings(self) -> Mapping[str, Any]: ...
    def records(self) -> Sequence[Record]: ...
    def environment(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Network:
    """One trained network: its experiment, where it came from, and all that was measured on it."""

    identity: str  # of the experiment that made it; where nothing was measured, something that no other has
    folder: str  # empty for one that was never saved
    seed: str
    settings: Mapping[str, Any]
    toml: str
    environment: Mapping[str, Any]
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Method:
    """One way of training, with the networks that it made from several seeds."""

    label: str
    kind: str  # the method's own name, such as weight-adversary
    data: str
    index: int  # place in the order given: fixes colour, dash and marker
    networks: tuple[Network, ...]


def read(runs: Sequence[Run]) -> tuple[Method, ...]:
    """Read `runs` into methods, in the order given; runs that differ in no setting but the seed are one method.

    Two folders of one experiment are one network: a copy is no second training.
    """
    networks = _without_copies([_network(run, str(place)) for place, run in enumerate(runs)])
    groups: dict[tuple[str, str], list[Network]] = {}
    for network in networks:
        groups.setdefault((_label(network), _fingerprint(network)), []).append(network)
    labels = _distinct_labels(list(groups))
    return tuple(
        Method(label, _text(members[0].settings, "method", "name"), _text(members[0].settings, "data"), index, tuple(members))
        for index, (label, members) in enumerate(zip(labels, groups.values(), strict=True))
    )


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


def _text(settings: Mapping[str, Any], *keys: str) -> str:
    """Return the setting at `keys` as text, empty where it is missing."""
    value: Any = settings
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


def _fingerprint(network: Network) -> str:
    return json.dumps(_flat({k: v for k, v in network.settings.items() if k not in _NOT_THE_METHOD}), sort_keys=True)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: str(value)}
    return flat


def _distinct_labels(groups: Sequence[tuple[str, str]]) -> list[str]:
    """Return one label per (label, fingerprint): where two methods were given the same name, the settings that differ are added."""
    labels = []
    for label, fingerprint in groups:
        namesakes = [json.loads(other) for name, other in groups if name == label]
        own = json.loads(fingerprint)
        different = [key for key in sorted(set().union(*namesakes)) if len({other.get(key) for other in namesakes}) > 1]
        added = ", ".join(f"{key} = {own.get(key, 'not set')}" for key in different)
        labels.append(f"{label} ({added})" if added else label)
    return labels
