"""A file lock that leaves nothing behind when the work it guards fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

__all__ = ["locked"]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock between processes; makes its folder, and takes file and folder away again when the work fails.

    (Whoever waits for the lock while it is taken away gets one that nobody else sees. What it guards is written to a
    temporary name and renamed, so the worst is work done twice.)

    Args:
        path: the lock file.

    Raises:
        OSError: when the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path):
            yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()  # fails when the folder holds anything else
        raise
