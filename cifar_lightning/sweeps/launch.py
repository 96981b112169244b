"""Start the runs of a sweep: on this machine, as many at once as it holds, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from cifar_lightning.sweeps.check import Cost
from cifar_lightning.sweeps.execute import Outcome, RunDiedError, execute
from cifar_lightning.sweeps.plan import PlannedRun, Sweep

__all__ = ["LocalPool", "Pool", "Resources", "check_resources", "launch"]


class Resources(NamedTuple):
    """Cores and GPUs: those that a machine has, or those that a run takes."""

    cores: int
    gpus: int


class Pool(Protocol):
    """What starts runs: threads of this process, or Ray."""

    @property
    def died(self) -> tuple[type[Exception], ...]:
        """Errors of a future whose run was killed, and was not started again."""

    def machines(self) -> list[Resources]:
        """Return the machines that runs can be on."""

    def submit(self, run: PlannedRun, wanted: Resources) -> Future[Outcome]:
        """Start a run as soon as a machine has its cores and GPUs free."""

    def close(self) -> None:
        """Kill the runs that have not ended."""


class LocalPool:
    """Run the commands of a sweep on this machine, each with cores, and GPUs, of its own.

    Args:
        sweep: the sweep.
        parent: folder for the run folders.
    """

    died = (RunDiedError,)

    def __init__(self, sweep: Sweep, parent: Path) -> None:
        self._sweep, self._place = sweep, (parent.resolve(), Path.cwd())
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._gpus = visible_gpus()
        self._machine = Resources(self._cores, len(self._gpus))
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(self._cores // sweep.cpus or 1)

    def machines(self) -> list[Resources]:
        """Return this machine, of which the process may use `taskset` or CUDA_VISIBLE_DEVICES to leave out a part."""
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


def launch(
    sweep: Sweep,
    runs: list[PlannedRun],
    costs: dict[str, Cost],
    parent: Path,
    address: str | None = None,
    on_end: Callable[[Outcome, int, float], None] = lambda outcome, left, seconds: None,
) -> list[Outcome]:
    """Run some or all runs of a sweep.

    Args:
        sweep: the sweep.
        runs: those to run.
        costs: of each, by id.
        parent: folder for the run folders; all machines have to see it.
        address: of a Ray cluster; None for this machine, without Ray.
        on_end: called after each run with its outcome, the number of runs left, and the seconds left by the estimate.

    Returns:
        The outcomes, in the order in which the runs ended.

    Raises:
        ValueError: when there is no such cluster, or a run needs more than any machine has.
    """
    pool: Pool = LocalPool(sweep, parent) if address is None else ray_pool(sweep, parent, address)
    # After the start of Ray, which would answer SIGTERM with a stack trace.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        wanted = {run.id: resources_of(sweep, costs[run.id]) for run in runs}
        check_resources(pool.machines(), wanted.values())
        # The longest first, so that none of them is left over at the end.
        longest_first = sorted(runs, key=lambda run: -costs[run.id].seconds)
        futures = {pool.submit(run, wanted[run.id]): run for run in longest_first}
        return collect(pool, futures, costs, on_end)
    finally:
        pool.close()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def ray_pool(sweep: Sweep, parent: Path, address: str) -> Pool:
    """Connect to a Ray cluster; nothing else of a sweep imports Ray."""
    from cifar_lightning.sweeps.cluster import RayPool

    return RayPool(sweep, parent, address)


def resources_of(sweep: Sweep, cost: Cost) -> Resources:
    """Return the cores and GPUs of a run."""
    return Resources(sweep.cpus * cost.devices, cost.devices if cost.gpu else 0)


def check_resources(machines: list[Resources], wanted: Iterable[Resources]) -> None:
    """Make sure that one of the machines can hold each run, which would otherwise wait forever.

    Raises:
        ValueError: when none can.
    """
    for cores, gpus in wanted:
        if not any(machine.cores >= cores and machine.gpus >= gpus for machine in machines):
            most = [max((machine[i] for machine in machines), default=0) for i in range(2)]
            raise ValueError(
                f"Expected a machine with {cores} cores and {gpus} GPUs for a run, got {len(machines)} with at most "
                f"{most[0]} cores and {most[1]} GPUs. Lower `cpus` or `trainer.devices`."
            )


def collect(
    pool: Pool,
    futures: dict[Future[Outcome], PlannedRun],
    costs: dict[str, Cost],
    on_end: Callable[[Outcome, int, float], None],
) -> list[Outcome]:
    """Wait for the runs, and report each as it ends."""
    outcomes = []
    started = time.monotonic()
    total = left = sum(costs[run.id].seconds for run in futures.values())
    for future in as_completed(futures):
        run = futures[future]
        left -= costs[run.id].seconds
        try:
            outcome = future.result()
        except pool.died as error:
            outcome = Outcome(run.id, f"died: {str(error).strip().splitlines()[-1][:300]}")
        outcomes.append(outcome)
        pace = (time.monotonic() - started) / (total - left) if total > left else float("nan")
        on_end(outcome, len(futures) - len(outcomes), left * pace)
    return outcomes
