"""Runs the command line in a process of its own, as a person would."""

from __future__ import annotations

import subprocess
import sys
import time

__all__ = ["PROGRAM", "run", "timed"]

PROGRAM = [sys.executable, "-m", "cifar_lightning"]


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Standard output of a command, with these environment variables; default: those of this process.

    Raises:
        ValueError: when it fails, with the end of what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise ValueError(f"Expected `{' '.join(command)}` to succeed, got exit status {done.returncode}: {said[-1]}")
    return done.stdout


def timed(command: list[str]) -> tuple[float, str]:
    """Wall-clock time of a command in seconds, and its standard output."""
    started = time.perf_counter()
    said = run(command)
    return time.perf_counter() - started, said
