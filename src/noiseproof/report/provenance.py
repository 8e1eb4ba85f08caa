"""Where every number comes from: settings, seeds, versions, machine and time of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from noiseproof.report.numbers import count, duration, listing
from noiseproof.report.reading import Method, Network, tasks


@dataclass(frozen=True)
class Origin:
    """One run, as it is listed at the end of the report."""

    label: str
    seed: str
    facts: tuple[tuple[str, str], ...]
    settings: str  # experiment.toml
    in_folder: bool  # not where a network was given in Python


def origins(methods: Sequence[Method]) -> tuple[Origin, ...]:
    """Return the provenance of every network, in the order of the methods."""
    several = len(tasks(methods)) > 1
    return tuple(
        Origin(f"{m.data}: {m.label}" if several else m.label, network.seed, _facts(network), network.toml.strip(), bool(network.folder))
        for m in methods
        for network in m.networks
    )


def _facts(network: Network) -> tuple[tuple[str, str], ...]:
    e, records = network.environment, network.records
    packages = e.get("packages")
    seconds = e.get("training_seconds")
    found = {
        "Folder": network.folder,
        "Experiment": network.identity if records else "",
        "Training time": duration(seconds) if isinstance(seconds, int | float) else "",
        "Trained on": str(e.get("date", "")),
        "Machine": ", ".join(str(e[key]) for key in ("machine", "processor") if e.get(key)),
        "Cores": str(e.get("cores", "")),
        "Device": str(e.get("device", "")),
        "noiseproof": str(e.get("noiseproof", "")),
        "Python": str(e.get("python", "")),
        "Packages": ", ".join(f"{name} {version}" for name, version in sorted(packages.items())) if isinstance(packages, Mapping) else "",
        "Records": _measured(network),
        "Seeds of chips and attacks": listing(str(s) for s in sorted({r.seed for r in records if r.seed is not None})),
    }
    return tuple((name, text) for name, text in found.items() if text)


def _measured(network: Network) -> str:
    """Return how many records there are, and with which versions and devices they were measured."""
    records = network.records
    if not records:
        return "none: nothing was measured yet"
    versions, devices = listing(sorted({r.version for r in records})), listing(sorted({r.device for r in records}))
    return f"{count(len(records), 'record')}, measured with noiseproof {versions} on {devices}"
