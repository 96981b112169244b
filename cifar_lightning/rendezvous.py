"""Where the processes of one training meet, and what is said when one of them is lost."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer
from torch.distributed import DistError, TCPStore

__all__ = ["explaining_a_lost_process", "meet_on_loopback"]


def meet_on_loopback(trainer: Trainer) -> TCPStore | None:
    """Has the processes that this one is about to start on its machine meet on loopback, where no other machine comes.

    PyTorch's first process would listen on all networks, and do what anyone who connects asks of its store. Machines
    that torchrun, srun or MASTER_ADDR bring together meet where those say.

    Args:
        trainer: before it starts anything.

    Returns:
        The store at which they meet, which lasts as long as this object; None where it is not for us to choose.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    starts_them = isinstance(environment, LightningEnvironment) and not environment.creates_processes_externally
    if trainer.world_size == 1 or trainer.num_nodes > 1 or not starts_them or "MASTER_ADDR" in os.environ:
        return None
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # PyTorch's word for: the store is there already
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    for backend in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{backend}_SOCKET_IFNAME", loopback)
    return store


@contextlib.contextmanager
def explaining_a_lost_process(trainer: Trainer, run: Path | None) -> Iterator[None]:
    """Turns the error of a connection to another process of the training into one message, of the first process.

    Raises:
        ConnectionError: when another process has ended, or cannot be reached.
        SystemExit: the same in all but the first.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, DistError) and "/gloo/" not in str(error):
            raise
        if not trainer.is_global_zero:
            raise SystemExit(1) from error
        resume = f"Go on with: fit --run {run}" if run else "Start again."
        raise ConnectionError(
            "Expected all processes of the training to stay, but another one has ended or cannot be reached "
            f"({str(error).splitlines()[0][:200]}). Without an error of its own above, the system may have killed it "
            f"for its memory. {resume}"
        ) from error
