"""Run the runs of a sweep, on this machine or on a Ray cluster, and report each as it ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, as_completed
from pathlib import Path

from cifar_lightning.sweeps.check import Cost
from cifar_lightning.sweeps.cluster import RayPool
from cifar_lightning.sweeps.execute import Outcome
from cifar_lightning.sweeps.local import LocalPool, Resources
from cifar_lightning.sweeps.plan import PlannedRun, Sweep

__all__ = ["check_resources", "launch"]


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
    pool = LocalPool(sweep, parent) if address is None else RayPool(sweep, parent, address)
    # After the start of Ray, which would answer SIGTERM with a stack trace.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        wanted = {run.id: resources_of(sweep, costs[run.id]) for run in runs}
        check_resources(pool.machines(), wanted.values(), sweep.runs_per_gpu)
        # The longest first, so that none of them is left over at the end.
        longest_first = sorted(runs, key=lambda run: -costs[run.id].seconds)
        futures = {pool.submit(run, wanted[run.id]): run for run in longest_first}
        return collect(pool, futures, costs, on_end)
    finally:
        pool.close()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def resources_of(sweep: Sweep, cost: Cost) -> Resources:
    """Return the cores and GPUs of a run."""
    return Resources(sweep.cpus * cost.devices, cost.devices if cost.gpu else 0)


def check_resources(machines: list[Resources], wanted: Iterable[Resources], runs_per_gpu: int = 1) -> None:
    """Make sure that one of the machines can hold each run, which would otherwise wait forever.

    Raises:
        ValueError: when none can, or a run on several GPUs would share them.
    """
    for cores, gpus in wanted:
        if gpus > 1 and runs_per_gpu > 1:
            raise ValueError(f"Expected runs on one GPU where `runs_per_gpu` is {runs_per_gpu}, got a run on {gpus}.")
        if not any(machine.cores >= cores and machine.gpus >= gpus for machine in machines):
            most = [max((machine[i] for machine in machines), default=0) for i in range(2)]
            raise ValueError(
                f"Expected a machine with {cores} cores and {gpus} GPUs for a run, got {len(machines)} with at most "
                f"{most[0]} cores and {most[1]} GPUs. Lower `cpus` or `trainer.devices`."
            )


def collect(
    pool: LocalPool | RayPool,
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
