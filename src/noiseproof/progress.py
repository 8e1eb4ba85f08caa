"""Progress of long work on standard error: a bar on a terminal, plain lines elsewhere, and an estimate after the first seconds."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any


class Progress:
    """Counts `total` steps of `task`; use as a context manager. `quiet` shows nothing."""

    _FIRST = 3.0  # seconds after which the time that is left is estimated
    _BETWEEN = 30.0  # seconds between two plain lines

    def __init__(self, task: str, total: int, *, done: int = 0, quiet: bool = False) -> None:
        self.task, self.total, self.done, self.note = task, total, done, ""
        self._quiet, self._bar, self._bar_task = quiet, None, None
        self._begun, self._from, self._next = time.monotonic(), done, self._FIRST

    def restart(self) -> Progress:
        """Begin to measure now, from what is already done."""
        self._begun, self._from, self._next = time.monotonic(), self.done, self._FIRST
        return self

    def __enter__(self) -> Progress:
        if not self._quiet:
            self._console = _console()
            if self._console.is_terminal:
                self._bar = _bar(self._console)
                self._bar.start()
                self._bar_task = self._bar.add_task(self.task, total=self.total, completed=self.done, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Count `steps`; `note` stays beside the bar, and in the plain lines, until the next one."""
        self.done += steps
        self.total = max(self.total, self.done)
        self.note = self.note if note is None else note
        if self._bar is not None and self._bar_task is not None:
            self._bar.update(self._bar_task, completed=self.done, total=self.total, note=self.note)
        elif not self._quiet and time.monotonic() - self._begun > self._next:
            self._next = time.monotonic() - self._begun + self._BETWEEN
            self.say(", ".join(filter(None, [self.note, f"{self.done} of {self.total}", f"about {duration(self.left())} left"])))

    def left(self) -> float:
        """Return the estimate of the seconds left."""
        steps = max(1, self.done - self._from)
        return (time.monotonic() - self._begun) / steps * (self.total - self.done)

    def say(self, line: str) -> None:
        """Show a line of plain text that stays."""
        if not self._quiet:
            (self._bar.console if self._bar is not None else self._console).print(f"{self.task}: {line}", markup=False, highlight=False)


def duration(seconds: float) -> str:
    """Return a length of time in words.

    Example:
        >>> duration(7), duration(200), duration(9000)
        ('7 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)


def _bar(console: Any) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    text = TextColumn("{task.description}", markup=False)
    columns = (
        text,
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "left",
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return Bar(*columns, console=console)
