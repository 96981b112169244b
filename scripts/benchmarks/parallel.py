"""Several trainings side by side, each on one thread, against the same ones in turn: what a sweep gains."""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.commands import PROGRAM, run

__all__ = ["bench_parallel"]


def bench_parallel(args: argparse.Namespace) -> dict[str, Any]:
    """Wall-clock time of single-thread trainings one after the other and side by side, in turn, commands in whole."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    names = itertools.count()
    times: dict[str, list[float]] = {"one after the other": [], "side by side": []}
    with tempfile.TemporaryDirectory() as folder:

        def fit(_: int) -> None:
            place = ["--save_dir", folder, "--name", "parallel", "--version", str(next(names))]
            run([*PROGRAM, "fit", "--config", args.config, *args.options, *place], alone)

        for _ in range(args.rounds):
            for workers, seconds in zip((1, args.jobs), times.values(), strict=True):
                started = time.perf_counter()
                with ThreadPoolExecutor(workers) as pool:
                    list(pool.map(fit, range(args.jobs)))
                seconds.append(time.perf_counter() - started)
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    print(f"{f'{args.jobs} trainings':20} {'seconds, median':>16} {'lowest':>10} {'highest':>10}")
    for name, values in times.items():
        print(f"{name:20} {statistics.median(values):16.2f} {min(values):10.2f} {max(values):10.2f}")
    print(f"times sooner in each of {args.rounds} rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    settings = {"config": args.config, "options": args.options, "jobs": args.jobs}
    return {**settings, "seconds": times, "ratios": ratios, "median_ratio": statistics.median(ratios)}
