"""Run folders with made-up records."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import tomli_w
from made_up import METHODS, everything

from noiseproof.records import Record, RunFolder

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run folder: experiment.toml, environment.json and the records given."""

    def make(
        records: list[Record], *, name="", kind="standard", seed=0, data="fashion-mnist", extra="", epochs=8, method=None
    ) -> RunFolder:
        run = RunFolder(tmp_path / f"{len(list(tmp_path.iterdir())):02d}")
        run.path.mkdir()
        quoted = [json.dumps(text, ensure_ascii=False) for text in (name, data)]
        head = f"name = {quoted[0]}\ndata = {quoted[1]}\nepochs = {epochs}\nseed = {seed}\n{extra}\n"
        settings = tomli_w.dumps({"network": {"name": "cnn"}, "method": {"name": kind, **(method or {})}})
        run.experiment_file.write_text(head + settings, encoding="utf-8")
        environment = {
            "noiseproof": "0.1.0", "python": "3.11.2", "packages": {"torch": "2.13.0", "numpy": "2.4.6"}, "machine": "Linux x86_64",
            "processor": "Some CPU @ 2.1 GHz", "cores": 2, "device": "cpu", "date": "2025-01-02", "training_seconds": 4210.5,
        }  # fmt: skip
        run.environment_file.write_text(json.dumps(environment), encoding="utf-8")
        # not RunFolder.append: writing 6,000 records safely is not what is tested
        run.records_file.write_text("".join(json.dumps(asdict(r)) + "\n" for r in records), encoding="utf-8")
        return run

    return make


@pytest.fixture
def full_runs(make_run: MakeRun) -> list[RunFolder]:
    """Five methods, two networks each, everything measured on 100 chips at six levels."""
    kinds = {"forward noise + β": "weight-adversary"}
    return [
        make_run(everything(f"{kind}-{seed}", kind, seed), kind=kinds.get(kind, kind), name=kind if kind in kinds else "", seed=seed)
        for kind in METHODS
        for seed in (0, 1)
    ]
