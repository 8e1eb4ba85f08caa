"""A Record is one measured number with everything that made it; a run folder keeps them. Imports no torch.

Tables, plots and reports are made from records alone.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from noiseproof.errors import NoiseproofError
from noiseproof.files import append_lines, write_text

VERSION = metadata.version("noiseproof")


@dataclass(frozen=True)
class Record:
    """One measured number.

    `metric` is accuracy (a fraction in [0, 1]), cross_entropy or kl (nats), train_loss, validation_accuracy, seconds,
    tolerated_zeta …; `perturbation` is empty for the network as it is, else `{"name": "mismatch", "zeta": 0.3, …}` with
    all its settings; `at` places the number on an axis: `{"epoch": 3}`, `{"alpha": -0.5, "direction": 2}`.
    """

    run: str  # identity of the experiment that made the network
    metric: str
    value: float
    n: int  # samples behind the number
    split: str = "test"
    perturbation: Mapping[str, Any] = field(default_factory=dict)
    at: Mapping[str, float] = field(default_factory=dict)
    chip: int | None = None  # index of the simulated chip
    seed: int | None = None  # seed of the chips, the attack or the direction
    version: str = VERSION
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise NoiseproofError(f"{self.metric} of run {self.run} is {self.value}: the network gives numbers that are not finite")

    @property
    def key(self) -> str:
        """What was measured, without the result: two records with one key are the same measurement."""
        measured = (self.run, self.metric, self.n, self.split, dict(self.perturbation), dict(self.at), self.chip, self.seed)
        return json.dumps(measured, sort_keys=True)


class RunFolder:
    """The folder of one training: `experiment.toml`, `weights.safetensors`, `state.pt`, `records.jsonl`, `environment.json`, `log.txt`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    experiment_file = property(lambda self: self.path / "experiment.toml")
    weights_file = property(lambda self: self.path / "weights.safetensors")
    state_file = property(lambda self: self.path / "state.pt")
    records_file = property(lambda self: self.path / "records.jsonl")
    environment_file = property(lambda self: self.path / "environment.json")
    log_file = property(lambda self: self.path / "log.txt")

    def settings(self) -> dict[str, Any]:
        """Return `experiment.toml` as a plain dict.

        Raises `NoiseproofError` where there is no run folder, or its file is damaged.
        """
        if not self.experiment_file.is_file():
            raise NoiseproofError(
                f"{self.path} is no run folder: it has no experiment.toml; make one with noiseproof train --out {self.path}"
            )
        try:
            return tomllib.loads(self.experiment_file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise NoiseproofError(f"{self.experiment_file} is damaged: {error}; restore it or train into another folder") from None

    def environment(self) -> dict[str, Any]:
        """Return `environment.json`, empty where there is none yet."""
        if not self.environment_file.is_file():
            return {}
        try:
            return json.loads(self.environment_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise NoiseproofError(f"{self.environment_file} is damaged: {error}; delete it, the next training writes it anew") from None

    def records(self) -> list[Record]:
        """Return all records; of two with one key the later one holds. A last line cut short by a kill is no record."""
        if not self.records_file.is_file():
            return []
        text = self.records_file.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        known = {f.name for f in fields(Record)}
        found: dict[str, Record] = {}
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                values = json.loads(line)
                record = Record(**{k: v for k, v in values.items() if k in known})
            except (ValueError, TypeError, AttributeError) as error:
                raise NoiseproofError(
                    f"{self.records_file} line {number} is damaged: {error}; delete that line and evaluate again"
                ) from None
            found[record.key] = record
        return list(found.values())

    def append(self, records: Iterable[Record]) -> None:
        """Append records; a record is either whole on the disk or absent."""
        append_lines(self.records_file, [json.dumps(asdict(record), allow_nan=False) for record in records])

    def write_environment(self, device: str, seconds: float) -> None:
        """Write what this run was made with; `seconds` is the time that training took, all sessions together."""
        write_text(self.environment_file, json.dumps(environment(device) | {"training_seconds": round(seconds, 1)}, indent=2) + "\n")

    def log(self, line: str) -> None:
        """Append one line with the time to `log.txt`."""
        append_lines(self.log_file, [f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"])


def environment(device: str) -> dict[str, Any]:
    """Return versions, machine and device: what must be told beside every number."""
    packages = {name: metadata.version(name) for name in ("torch", "numpy", "scipy", "safetensors")}
    return {
        "noiseproof": VERSION,
        "python": platform.python_version(),
        "packages": packages,
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": device,
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
