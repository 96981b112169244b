"""Time and epochs of a recipe to a target accuracy."""

from __future__ import annotations

import argparse
import math
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.commands import PROGRAM, run
from cifar_lightning.runs import Run

__all__ = ["bench_train"]


def bench_train(args: argparse.Namespace) -> dict[str, Any]:
    """Wall-clock time and epochs of `fit` until the validation accuracy reaches the target, for each seed.

    PFLOP are those of the whole training, counted as three times those of a forward pass; "executed" leaves out what
    was not computed, such as gradients of frozen layers.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            place = ["--save_dir", folder, "--name", "train", "--version", str(seed), "--seed_everything", str(seed)]
            rows.append(timed_fit(["--config", args.config, *args.options, *place], args.target))
            where = Path(folder) / "train" / str(seed)
            if args.test:
                run([*PROGRAM, "test", "--run", str(where)])
            rows[-1] |= {"seed": seed, "result": Run(where).result}
            values = [value for value in Run(where).history().get("val/acc", []) if not math.isnan(value)]
            reached = [i for i, value in enumerate(values) if value >= args.target]
            rows[-1]["epochs_to_target"] = reached[0] + 1 if reached else None
            rows[-1]["seconds_to_target"] = rows[-1]["epoch_ends"][reached[0]] if reached else None
            rows[-1]["best_val_acc"] = max(values, default=None)
    heads = ("seed", "fit, s", "epochs to", "seconds to", "best val", "PFLOP", "executed")
    print(*(f"{head:>10}" for head in heads), f"  target {args.target}")
    for row in rows:
        cells = [row["epochs_to_target"], row["seconds_to_target"], row["best_val_acc"]]
        cells += [row["result"]["fit"][f"{kind}_flops"] / 1e15 for kind in ("training", "executed")]
        shown = [str(row["seed"]), f"{row['seconds']:.1f}", *("never" if x is None else f"{x:.4g}" for x in cells)]
        print(*(f"{cell:>10}" for cell in shown))
    return {
        "config": args.config,
        "options": args.options,
        "target": args.target,
        "runs": rows,
        "median_seconds": statistics.median(row["seconds"] for row in rows),
    }


def timed_fit(options: list[str], target: float) -> dict[str, Any]:
    """Runs `fit`, and notes the seconds from its start to the end of each epoch and of the command."""
    started, ends = time.perf_counter(), []
    command = [*PROGRAM, "fit", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            if re.match(r"epoch \d+/", line):
                ends.append(round(time.perf_counter() - started, 2))
            last = line.strip() or last
    if process.returncode:
        raise ValueError(f"Expected `{' '.join(command)}` to succeed, got exit status {process.returncode}: {last}")
    return {"seconds": time.perf_counter() - started, "epoch_ends": ends}
