"""How processes end: by a signal, by an option, or with the process that started them."""

from __future__ import annotations

import ctypes
import signal
import sys

__all__ = ["Interrupted", "end_with_parent"]


class Interrupted(BaseException):
    """A training stopped before it reached its length, and can go on from its last checkpoint.

    No `Exception`: code that catches errors should not catch it.

    Args:
        cause: what stopped it, such as SIGTERM or max_time.
        place: how far it was.
    """

    def __init__(self, cause: str, place: str) -> None:
        super().__init__(f"{cause} {place}")
        self.cause = cause

    @property
    def exit_status(self) -> int:
        """128 and the number of the signal, as shells have it; 0 for a stop that was asked for in the options."""
        return 128 + signal.Signals[self.cause] if self.cause in signal.Signals.__members__ else 0


def end_with_parent() -> None:
    """Asks Linux to kill this process when its parent ends, however that ends; elsewhere nothing happens."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
