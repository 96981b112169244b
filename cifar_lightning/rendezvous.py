"""Connect the processes of one training on the loopback interface, and report one that is lost."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer
from torch.distributed import DistError, TCPStore

from cifar_lightning import runs
from cifar_lightning.private import AGENT_STORE, GLOO_ERROR

__all__ = ["leave_group", "rendezvous_on_loopback", "report_lost_process"]


_stores: list[TCPStore] = []
"""Stores of this process, kept until Python ends: the other processes use them until they have ended."""


def rendezvous_on_loopback(trainer: Trainer) -> None:
    """Make the processes that this one starts rendezvous on the loopback interface, out of reach of other machines.

    By default, rank 0 listens on all interfaces, and its TCPStore obeys any client. Processes that torchrun, srun or
    MASTER_ADDR connect are left alone, and so is everything on Windows.

    Args:
        trainer: before it starts a process.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    starts_them = isinstance(environment, LightningEnvironment) and not environment.creates_processes_externally
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    elsewhere = trainer.num_nodes > 1 or "MASTER_ADDR" in os.environ
    if not starts_them or elsewhere or loopback is None or sys.platform == "win32":
        return
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    _stores.append(
        TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    )
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ[AGENT_STORE] = "True"  # connect to this store instead of starting one
    for backend in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{backend}_SOCKET_IFNAME", loopback)


def leave_group() -> None:
    """End the threads that connect this process to the others, if there are any.

    Lightning does so for NCCL alone. With gloo, a thread that still runs when Python ends may abort the process, after
    all of its work is done.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def report_lost_process(trainer: Trainer, run: Path | None) -> Iterator[None]:
    """Turn a lost connection to another process into one message, printed by the first process.

    Raises:
        ConnectionError: in the first process, when another one has ended or cannot be reached.
        SystemExit: in the others.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, DistError) and GLOO_ERROR not in text:
            raise
        if not any(word in text.lower() for word in ("connection", "remote process")):
            raise  # such as a GPU that two processes share
        if not trainer.is_global_zero:
            raise SystemExit(1) from error
        started = trainer.state.fn == "fit" and run is not None and (run / runs.CONFIG).is_file()
        raise ConnectionError(
            "Lost contact with another process of this training "
            f"({text.splitlines()[0][:200]}). If no error of its own stands above, the system may have killed it for "
            f"lack of memory. {f'Continue with: fit --run {run}' if started else 'Start again.'}"
        ) from error
