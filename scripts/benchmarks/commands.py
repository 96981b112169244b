"""Run commands in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["PROGRAM", "SEES_BENCHMARKS", "run", "timed"]

PROGRAM = [sys.executable, "-m", "cifar_lightning"]
SCRIPTS = str(Path(__file__).parents[1])
SEES_BENCHMARKS = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (SCRIPTS, os.environ.get("PYTHONPATH"))))}
"""Environment of a process that can import this package."""


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Return the standard output of a command, run with these environment variables or those of this process.

    Raises:
        ValueError: when it fails, with the last line of its output.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise ValueError(f"Expected `{' '.join(command)}` to succeed, got exit status {done.returncode}: {said[-1]}")
    return done.stdout


def timed(command: list[str]) -> tuple[float, str]:
    """Return the wall-clock time of a command in seconds, and its standard output."""
    started = time.perf_counter()
    said = run(command)
    return time.perf_counter() - started, said
