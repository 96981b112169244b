"""The machine, the versions and the commit that a number was measured with."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from cifar_lightning import __version__

__all__ = ["git_commit", "hardware", "peak_rss_bytes", "versions"]


def versions() -> dict[str, str]:
    """Versions of Python, this project and what its numbers depend on."""
    packages = ("torch", "torchvision", "lightning", "torchmetrics", "numpy")
    return {
        "python": platform.python_version(),
        "cifar_lightning": __version__,
        **{package: metadata.version(package) for package in packages},
    }


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, threads that torch uses, memory in bytes, and GPUs by name."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def cpu_model() -> str:
    """Name of the processor, as it calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with "-dirty" when files differ from it; else None."""
    folder = Path(__file__).parent
    try:
        # Without the top level check, a package installed inside some other repository would claim its commit.
        def git(*args: str) -> str:
            done = subprocess.run(["git", "-C", folder, *args], capture_output=True, text=True, timeout=10, check=True)
            return done.stdout.strip()

        if Path(git("rev-parse", "--show-toplevel")) != folder.parent:
            return None
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
