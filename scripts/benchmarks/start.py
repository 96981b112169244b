"""How long it takes to get going."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.commands import PROGRAM, SEES_BENCHMARKS, timed

__all__ = ["FirstStep", "bench_start"]

IMPORTS = [sys.executable, "-c", "import torch, lightning.pytorch, lightning.pytorch.cli, torchmetrics"]
BARE = [sys.executable, "-c", "import torch, lightning"]


class FirstStep(Callback):
    """Says when the first training step ends, on a clock that all processes share, and ends the training."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prints the time and stops."""
        if not trainer.should_stop:
            print(f"first step: {time.monotonic()}", flush=True)
        trainer.should_stop = True


def to_first_step(options: list[str]) -> float:
    """Seconds from the command to the end of its first training step.

    Raises:
        ValueError: when the training ends before.
    """
    callback = ["--trainer.callbacks+", f"{__name__}.FirstStep", "--trainer.limit_train_batches=1"]
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        command = [*PROGRAM, "fit", *options, *callback, "--trainer.max_epochs=1", "--save_dir", folder]
        done = subprocess.run(command, capture_output=True, text=True, env=SEES_BENCHMARKS)
    lines = [line for line in done.stdout.splitlines() if line.startswith("first step:")]
    if not lines:
        raise ValueError(f"Expected `{' '.join(command)}` to take a step, got: {done.stderr.strip()[-300:]}")
    return float(lines[0].split(":")[1]) - started


def bench_start(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of bare imports, of `--help` and to the first training step, in turn, after one unmeasured round."""
    options = ["--config", args.config, "--data.val_size=0", *args.options]
    times: dict[str, list[float]] = {"import torch, lightning": [], "imports": [], "--help": [], "first step": []}
    for index in range(args.rounds + 1):
        found = (*(timed(command)[0] for command in (BARE, IMPORTS, [*PROGRAM, "--help"])), to_first_step(options))
        if index:
            for values, value in zip(times.values(), found, strict=True):
                values.append(value)
    bare = times["import torch, lightning"]
    print(f"{'':24} {'seconds, median':>16} {'over bare imports':>18}")
    ratios = {}
    for name, values in times.items():
        ratios[name] = statistics.median(value / base for value, base in zip(values, bare, strict=True))
        print(f"{name:24} {statistics.median(values):16.2f} {ratios[name]:18.2f}")
    return {"options": options, "seconds": times, "median_ratios": ratios}
