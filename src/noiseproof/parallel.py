"""Pools of forked processes. Workers inherit what they work on, so that nothing large is sent and scripts need no main guard."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from noiseproof.errors import NoiseproofError, require_number

# what a forked worker calls; set just before the fork
_work: Callable[[Any], Any] | None = None


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def forked(work: Callable[[Any], Any], processes: int | None = None) -> Iterator[Callable[[Iterable[Any]], Iterator[Any]]]:
    """Give a function that maps `work` over items in `processes` one-thread processes, results in order.

    With one process, or once CUDA is in use (it does not survive a fork), the work is done here. Items and results are
    pickled; `work` itself is inherited. Workers end with this process, even when it is killed.

    Raises `NoiseproofError` when a worker is killed, for want of memory as a rule.
    """
    processes = cores() if processes is None else processes
    require_number("processes", processes, 1)
    if processes == 1 or torch.cuda.is_initialized() or not hasattr(os, "fork"):
        yield lambda items: map(work, items)
        return
    global _work
    _work = work
    pool = ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("fork"), initializer=_begin_worker, initargs=(os.getpid(),)
    )

    def run(items: Iterable[Any]) -> Iterator[Any]:
        try:
            yield from pool.map(_run, items)
        except BrokenProcessPool:
            raise NoiseproofError(
                f"processes is {processes}: a worker was killed, likely for want of memory; use fewer processes"
            ) from None

    try:
        yield run
    except BaseException:
        # what is under way is not wanted any more; and an interrupt while work is handed out could leave both sides waiting for ever
        for worker in list((pool._processes or {}).values()):
            worker.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        _work = None


def _begin_worker(parent: int) -> None:
    # before any other call of torch: a child that enters a parallel region after the parent did would hang
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells its workers when to end
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        die_with_parent = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _run(item: Any) -> Any:
    assert _work is not None
    return _work(item)
