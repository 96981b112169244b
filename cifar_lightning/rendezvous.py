"""Where the processes of one training meet, and what is said when one of them is lost."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer
from torch.distributed import DistError, TCPStore

from cifar_lightning import runs

__all__ = ["explaining_a_lost_process", "meet_on_loopback"]


_stores: list[TCPStore] = []
"""Kept until Python ends, as long as PyTorch's own: the processes part after everything else."""


def meet_on_loopback(trainer: Trainer) -> None:
    """Has the processes that this one is about to start on its machine meet on loopback, where no other machine comes.

    PyTorch's first process would listen on all networks, and do what anyone who connects asks of its store. Machines
    that torchrun, srun or MASTER_ADDR bring together meet where those say. On Windows all is as PyTorch has it.

    Args:
        trainer: before it starts anything.
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
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # PyTorch's word for: the store is there already
    for backend in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{backend}_SOCKET_IFNAME", loopback)


@contextlib.contextmanager
def explaining_a_lost_process(trainer: Trainer, run: Path | None) -> Iterator[None]:
    """Turns the error of a connection to another process into one message, of the first process.

    Raises:
        ConnectionError: when another process has ended, or cannot be reached.
        SystemExit: the same in all but the first.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, DistError) and "/gloo/" not in text:
            raise
        if not any(word in text.lower() for word in ("connection", "remote process")):
            raise  # such as a GPU that two processes share
        if not trainer.is_global_zero:
            raise SystemExit(1) from error
        started = trainer.state.fn == "fit" and run is not None and (run / runs.CONFIG).is_file()
        raise ConnectionError(
            "Expected all processes to stay, but another one has ended or cannot be reached "
            f"({text.splitlines()[0][:200]}). Without an error of its own above, the system may have killed it for its "
            f"memory. {f'Go on with: fit --run {run}' if started else 'Start again.'}"
        ) from error
