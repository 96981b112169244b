"""What the processes of this machine are about, from Linux's /proc."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 as `listening` gives it, lowest byte first."""


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process that has one."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        if line:
            found[int(path.name)] = parent, line
    return found


def descendants(ancestor: int, words: str) -> list[int]:
    """Ids of the processes that a process has started, by itself or through others, whose line matches."""
    everything = processes()
    found = []
    for pid, (parent, line) in everything.items():
        while parent in everything and parent != ancestor:
            parent = everything[parent][0]
        if parent == ancestor and re.search(words, line):
            found.append(pid)
    return found


def listening(pids: list[int]) -> list[str]:
    """Addresses that processes listen on, as hexadecimal numbers."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):  # closed meanwhile
                sockets.add(os.readlink(link))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]


def wait_until(condition: Callable[[], T], seconds: float = 180) -> T:
    """What the condition gives as soon as that is anything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it never happened")
