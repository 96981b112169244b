"""How processes end: asked to by a signal, or with the one that started them."""

from __future__ import annotations

import ctypes
import signal
import sys

__all__ = ["Interrupted", "end_with_parent"]


class Interrupted(BaseException):
    """A training was asked to end, and can go on from its last checkpoint.

    No `Exception`: nothing that catches errors should catch it.

    Args:
        signal_number: what it was asked by.
        place: how far it was.
    """

    def __init__(self, signal_number: int, place: str) -> None:
        super().__init__(f"{signal.Signals(signal_number).name} {place}")
        self.signal_number = signal_number


def end_with_parent() -> None:
    """Asks Linux to kill this process when its parent ends, however that ends; elsewhere nothing happens."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
