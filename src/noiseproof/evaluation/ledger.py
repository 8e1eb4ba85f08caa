from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from noiseproof.records import Record


class Ledger:
    """The records of one network: knows what was measured already, and passes on what is new.

    `run`: identity of the network; `records`: what is there; `save`: called with every new list of records.
    """

    def __init__(
        self,
        run: str = "network",
        records: Iterable[Record] = (),
        save: Callable[[list[Record]], None] | None = None,
        device: str = "cpu",
    ) -> None:
        self.run, self.device, self._save = run, device, save
        self._records = {record.key: record for record in records}

    @property
    def records(self) -> list[Record]:
        """All records, in the order in which they came."""
        return list(self._records.values())

    def make(
        self,
        metric: str,
        value: float,
        n: int,
        perturbation: Mapping[str, Any] | None = None,
        at: Mapping[str, float] | None = None,
        chip: int | None = None,
        seed: int | None = None,
        split: str = "test",
    ) -> Record:
        """Return a record of this network."""
        return Record(self.run, metric, value, n, split, perturbation or {}, at or {}, chip, seed, device=self.device)

    def find(self, wanted: Record) -> Record | None:
        """Return the record of the same measurement, whatever its result, or None."""
        return self._records.get(wanted.key)

    def add(self, records: list[Record]) -> list[Record]:
        """Keep `records` and save them; return them."""
        self._records |= {record.key: record for record in records}
        if self._save is not None and records:
            self._save(records)
        return records
