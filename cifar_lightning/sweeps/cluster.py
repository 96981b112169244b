"""Start the runs of a sweep on the machines of a Ray cluster, which share a folder."""

from __future__ import annotations

import logging
import socket
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from cifar_lightning.sweeps.execute import Outcome, RunDiedError, execute
from cifar_lightning.sweeps.local import Resources
from cifar_lightning.sweeps.plan import PlannedRun, Sweep

__all__ = ["RayPool", "connect"]

TOKEN = (
    "\nSomething listens there. If it is a cluster with a token (Ray 2.59 and newer), copy ~/.ray/auth_token from its "
    "first machine to this one, and set RAY_AUTH_MODE=token: see docs/sweeps.md."
)


class RayPool:
    """Run the commands of a sweep on the machines of a cluster.

    Args:
        sweep: the sweep.
        parent: folder for the run folders, which all machines see.
        address: of the cluster, as `ray.init` takes it.

    Raises:
        ValueError: when Ray is not installed, or no cluster answers.
    """

    def __init__(self, sweep: Sweep, parent: Path, address: str) -> None:
        self._ray = connect(address)
        self.died: tuple[type[Exception], ...] = (RunDiedError, self._ray.exceptions.RayError)
        self._arguments = (sweep, parent.resolve(), Path.cwd())
        self._execute = self._ray.remote(max_retries=sweep.retries, retry_exceptions=[RunDiedError])(execute)

    def machines(self) -> list[Resources]:
        """Return the machines of the cluster."""
        resources = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [Resources(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in resources]

    def submit(self, run: PlannedRun, wanted: Resources) -> Future[Outcome]:
        """Start a run as soon as a machine has its cores and GPUs free."""
        gpus = wanted.gpus / self._arguments[0].runs_per_gpu
        remote = self._execute.options(num_cpus=wanted.cores, num_gpus=gpus, name=run.id)
        future: Future[Outcome] = remote.remote(run, *self._arguments).future()
        return future

    def close(self) -> None:
        """Kill the runs that have not ended."""
        self._ray.shutdown()


def connect(address: str) -> Any:
    """Return the module `ray`, connected to a cluster.

    Raises:
        ValueError: when it is not installed, or no cluster answers.
    """
    if address == "local":
        raise ValueError(
            "Expected `--address` of a running Ray cluster, such as first:6379, got local. Leave it out to run the "
            "sweep on this machine."
        )
    try:
        import ray
    except ImportError as error:
        raise ValueError("`--address` needs Ray, which is not installed: pip install '.[sweep]'.") from error
    try:
        check_reachable(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (OSError, ValueError, ray.exceptions.RayError) as error:
        # Ray itself does not name the token where it was not accepted.
        hint = "" if isinstance(error, UnreachableError) else TOKEN
        raise ValueError(f"Expected a Ray cluster at `--address` {address}, got: {error}{hint}") from error
    return ray


class UnreachableError(OSError):
    """Nothing listens at an address."""


def check_reachable(address: str) -> None:
    """Make sure that something listens at an address: Ray itself would try for many minutes.

    Raises:
        UnreachableError: when nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise UnreachableError(str(error)) from error
