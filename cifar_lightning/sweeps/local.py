"""Start the runs of a sweep on this machine, as many at once as it has cores and GPUs for."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from cifar_lightning.sweeps.execute import Outcome, RunDiedError, execute
from cifar_lightning.sweeps.plan import PlannedRun, Sweep

__all__ = ["LocalPool", "Resources"]


class Resources(NamedTuple):
    """Cores and GPUs: those that a machine has, or those that a run takes."""

    cores: int
    gpus: int


class LocalPool:
    """Run the commands of a sweep on this machine, with cores of their own and GPUs that `runs_per_gpu` runs share.

    Args:
        sweep: the sweep.
        parent: folder for the run folders.
    """

    died: tuple[type[Exception], ...] = (RunDiedError,)
    """Errors of a run that was killed once too often."""

    def __init__(self, sweep: Sweep, parent: Path) -> None:
        self._sweep, self._place = sweep, (parent.resolve(), Path.cwd())
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        gpus = visible_gpus()
        self._machine = Resources(self._cores, len(gpus))
        self._gpus = gpus * sweep.runs_per_gpu
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(self._cores // sweep.cpus or 1)

    def machines(self) -> list[Resources]:
        """Return this machine, without the cores and GPUs that `taskset` and CUDA_VISIBLE_DEVICES leave out."""
        return [self._machine]

    def submit(self, run: PlannedRun, wanted: Resources) -> Future[Outcome]:
        """Start a run as soon as its cores and GPUs are free, in the order of the calls."""
        return self._threads.submit(self._attempt, run, wanted)

    def close(self) -> None:
        """Kill the runs that have not ended."""
        self._stop.set()
        self._threads.shutdown(cancel_futures=True)

    def _attempt(self, run: PlannedRun, wanted: Resources) -> Outcome:
        with self._reserved(wanted) as gpus:
            # Without GPUs of its own a run would take the first one of the machine.
            environment = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if self._machine.gpus else {}
            for _ in range(self._sweep.retries):
                with contextlib.suppress(RunDiedError):
                    return execute(run, self._sweep, *self._place, environment, self._stop)
            return execute(run, self._sweep, *self._place, environment, self._stop)

    @contextlib.contextmanager
    def _reserved(self, wanted: Resources) -> Iterator[list[str]]:
        with self._changed:
            self._changed.wait_for(lambda: self._cores >= wanted.cores and len(self._gpus) >= wanted.gpus)
            self._cores -= wanted.cores
            gpus, self._gpus = self._gpus[: wanted.gpus], self._gpus[wanted.gpus :]
        try:
            yield gpus
        finally:
            with self._changed:
                self._cores += wanted.cores
                self._gpus += gpus
                self._changed.notify_all()


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return named[:count] if len(named) >= count and named[0] else [str(index) for index in range(count)]
