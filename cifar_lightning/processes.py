"""How processes start and end: by launchers, by signals, by an option, or with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["Interrupted", "end_with_parent", "stray_rank"]

RANKS = {
    "RANK": ("WORLD_SIZE", "MASTER_ADDR"),
    "LOCAL_RANK": ("WORLD_SIZE", "MASTER_ADDR"),
    "SLURM_PROCID": ("SLURM_NTASKS",),
    "JSM_NAMESPACE_RANK": ("JSM_NAMESPACE_SIZE",),
}
"""Variables that hold the rank of a process, in the order in which Lightning reads them, and those that torchrun,
Lightning, SLURM and LSF set beside them."""


class Interrupted(BaseException):
    """A training that stopped before it reached its length and can continue from its last checkpoint.

    It is not an `Exception`, so that code that catches errors does not catch it.

    Args:
        cause: what stopped it, such as SIGTERM or max_time.
        place: how far it was.
    """

    def __init__(self, cause: str, place: str) -> None:
        super().__init__(f"{cause} {place}")
        self.cause = cause

    @property
    def exit_status(self) -> int:
        """128 plus the number of the signal, as in shells; 0 for a stop that an option asked for."""
        return 128 + signal.Signals[self.cause] if self.cause in signal.Signals.__members__ else 0


def end_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends; do nothing on other systems."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def stray_rank() -> str:
    """Return the message for an environment that makes this process one of several that were never started.

    Such a process would leave the run folder to a first process that is missing, and wait for it. Empty when the
    environment is that of a launcher, or of a single process.
    """
    for rank, beside in RANKS.items():
        number = os.environ.get(rank, "0")
        missing = [name for name in beside if name not in os.environ]
        if not number.isdecimal() or (int(number) and missing):
            without = f" without {' and '.join(missing)}" if missing else ""
            return (
                f"Expected {rank} to be the rank of this process, set by a launcher together with "
                f"{' and '.join(beside)}, got {rank}={number}{without}. Remove it with `unset {rank}`, or start all "
                "processes with torchrun or srun."
            )
    return ""
