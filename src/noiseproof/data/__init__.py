"""Data: named sets (one file each), any pair of tensors, any map-style `Dataset`. This file is the table of public names.

Everything comes out as `Splits`: train, validation and test in the data's own units, and the `Task` that a network must
know. Nothing here normalises: networks do that inside, with `task.mean` and `task.std`.
"""

from __future__ import annotations

from noiseproof.data._data_set import Arrays, DataSet
from noiseproof.data._events import event_frames
from noiseproof.data._named import available, fetch, load, where
from noiseproof.data._outside import from_dataset, from_tensors
from noiseproof.data._splits import Split, Splits, Task

__all__ = [
    "Arrays",
    "DataSet",
    "Split",
    "Splits",
    "Task",
    "available",
    "event_frames",
    "fetch",
    "from_dataset",
    "from_tensors",
    "load",
    "where",
]
