"""Ray places the runs of a sweep: on this machine, or on the nodes of a cluster that share a folder."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from cifar_lightning.private import RAY_NICENESS, RAY_NO_CLUSTER
from cifar_lightning.sweeps.check import Cost
from cifar_lightning.sweeps.execute import Outcome, RunDiedError, execute
from cifar_lightning.sweeps.plan import PlannedRun, Sweep

__all__ = ["launch"]

logger = logging.getLogger(__name__)

TOKEN = (
    "\nSomething listens there. If it is a cluster with a token (Ray 2.59 and newer), copy ~/.ray/auth_token from its "
    "first machine to this one, and set RAY_AUTH_MODE=token: see docs/sweeps.md."
)


def launch(
    sweep: Sweep,
    runs: list[PlannedRun],
    costs: dict[str, Cost],
    parent: Path,
    address: str | None = None,
    on_end: Callable[[Outcome, int, float], None] = lambda outcome, left, seconds: None,
) -> list[Outcome]:
    """Runs some or all runs of a sweep.

    Args:
        sweep: the sweep.
        runs: those to run.
        costs: of each, by id.
        parent: folder for the run folders; all nodes have to see it.
        address: of a Ray cluster; None for this machine alone.
        on_end: called after each run with its outcome, the number of runs left, and the seconds left by the estimate.

    Returns:
        The outcomes, in the order in which the runs ended.

    Raises:
        ValueError: when Ray is not installed, or a run asks for more than there is.
    """
    ray = start_ray(address)
    # After Ray, which would answer SIGTERM with a stack trace of its own.
    before = signal.signal(signal.SIGTERM, stop) if in_main_thread() else None
    try:
        check_resources(ray, sweep, [costs[run.id] for run in runs])
        remote = ray.remote(max_retries=sweep.retries, retry_exceptions=[RunDiedError])(execute)
        waiting = {}
        # The longest first, so that none of them is left over at the end.
        for run in sorted(runs, key=lambda run: -costs[run.id].seconds):
            cost = costs[run.id]
            wanted = {"num_cpus": sweep.cpus * cost.devices, "num_gpus": cost.devices if cost.gpu else 0}
            waiting[remote.options(**wanted, name=run.id).remote(run, sweep, parent.resolve(), Path.cwd())] = run
        return collect(ray, waiting, costs, on_end)
    finally:
        ray.shutdown()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def in_main_thread() -> bool:
    """Whether signals may be handled here."""
    return threading.current_thread() is threading.main_thread()


def stop(number: int, frame: FrameType | None) -> None:
    """Ends a sweep as Ctrl-C does, the only way that Ray knows of; its runs end with it."""
    raise KeyboardInterrupt


def collect(
    ray: Any,
    waiting: dict[Any, PlannedRun],
    costs: dict[str, Cost],
    on_end: Callable[[Outcome, int, float], None],
) -> list[Outcome]:
    """Waits for the runs, and tells of each as it ends."""
    outcomes = []
    started = time.monotonic()
    total = sum(costs[run.id].seconds for run in waiting.values())
    while waiting:
        (ended,), _ = ray.wait(list(waiting), num_returns=1)
        run = waiting.pop(ended)
        try:
            outcome = ray.get(ended)
        except (RunDiedError, ray.exceptions.RayError) as error:
            outcome = Outcome(run.id, f"died: {str(error).strip().splitlines()[-1][:300]}")
        outcomes.append(outcome)
        left = sum(costs[run.id].seconds for run in waiting.values())
        pace = (time.monotonic() - started) / (total - left) if total > left else float("nan")
        on_end(outcome, len(waiting), left * pace)
    return outcomes


def start_ray(address: str | None) -> Any:
    """The module, connected: to a cluster, or to processes of its own.

    Those listen on loopback alone, unless Ray was imported before, which then has decided otherwise.

    Raises:
        ValueError: when it is not installed, or there is nothing at the address.
    """
    if address is None:
        os.environ.setdefault(RAY_NO_CLUSTER, "0")  # Ray looks at it when it is imported
    try:
        import ray
    except ImportError as error:
        raise ValueError("Expected Ray to place the runs, but it is not installed: pip install '.[sweep]'.") from error
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if address is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        options |= {"address": "local", "num_cpus": cores, "include_dashboard": False}
        # Ray would give its workers the lowest priority, and a single busy process beside them would stop the sweep.
        options |= RAY_NICENESS
    else:
        options["address"] = address
    where = f"a Ray cluster at `--address` {address}" if address else "Ray to start on this machine"
    try:
        knock(address)
    except OSError as error:
        raise ValueError(f"Expected {where}, got: {error}") from error
    try:
        ray.init(**options)
    except (OSError, ValueError, ray.exceptions.RayError) as error:
        # Ray itself does not name the token where it was not accepted.
        raise ValueError(f"Expected {where}, got: {error}{TOKEN if address else ''}") from error
    return ray


def knock(address: str | None) -> None:
    """Looks whether anybody listens at an address: Ray itself would try for many minutes.

    Raises:
        OSError: when nobody does.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def check_resources(ray: Any, sweep: Sweep, costs: list[Cost]) -> None:
    """Makes sure that some node can hold each run: Ray would wait for one for ever.

    Raises:
        ValueError: when none can.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for cost in costs:
        cpus, gpus = sweep.cpus * cost.devices, cost.devices if cost.gpu else 0
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            most = max((node.get("CPU", 0) for node in nodes), default=0)
            raise ValueError(
                f"Expected a machine with {cpus} cores and {gpus} GPUs for a run, got {len(nodes)} with {most:g} cores "
                "at most. Lower `cpus` or `trainer.devices`."
            )
