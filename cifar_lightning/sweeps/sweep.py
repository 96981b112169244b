"""The command `sweep`: plan a sweep, run what is not done, and compare the runs."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cifar_lightning.comparison.compare import write_comparison
from cifar_lightning.comparison.records import KEPT, PLAN, read_runs
from cifar_lightning.files import user_path
from cifar_lightning.sweeps.check import Cost, check_runs
from cifar_lightning.sweeps.execute import Outcome, done
from cifar_lightning.sweeps.keep import KeptRuns, plan_rows, write_list
from cifar_lightning.sweeps.launch import launch
from cifar_lightning.sweeps.plan import PlannedRun, Sweep, expand, load_sweep
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["sweep"]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = ArgumentParser(
        "cifar-lightning sweep",
        description="Run every combination of a sweep with every seed, and compare them. A sweep that was stopped "
        "continues when it is started again: finished runs are not run again.",
    )
    made.add_argument("sweep", type=user_path, metavar="YAML", help="the sweep; configs/sweeps/ has some")
    made.add_argument("--dry_run", "--dry-run", action="store_true", help="show the plan and stop")
    made.add_argument(
        "--address", help="of a Ray cluster to run on, such as first:6379; default: this machine, without Ray"
    )
    made.add_argument("--save_dir", type=user_path, default=Path("lightning_logs"), help="folder that every node sees")
    made.add_argument(
        "--results",
        type=user_path,
        help="folder to keep the numbers of finished runs in, as <sweep>/runs.json: runs in this file count as done",
    )
    made.add_argument("--output", type=user_path, help="folder of the comparison; default: comparison/ beside the runs")
    made.add_argument(
        "--no_estimate", "--no-estimate", action="store_true", help="time no steps; max_hours is then unchecked"
    )
    return made


def sweep(args: Sequence[str]) -> int:
    """Run a sweep.

    Args:
        args: the command line after `sweep`.

    Returns:
        0; 1 when runs failed; 130 when Ctrl-C or SIGTERM stopped it.

    Raises:
        ValueError: when the sweep is not valid, before anything starts.
    """
    parsed = parser().parse_args(args)
    plan = load_sweep(parsed.sweep)
    runs = expand(plan)
    costs = check_runs(plan, runs, estimate=not parsed.no_estimate)
    parent = parsed.save_dir / plan.name
    kept = KeptRuns(parsed.results / plan.name / KEPT, plan, runs) if parsed.results else None
    ids = kept.ids() if kept else set()
    pending = [run for run in runs if run.id not in ids and not done(parent / run.id, plan.stages)]
    print(table(plan, runs, costs, len(runs) - len(pending)), flush=True)
    if parsed.dry_run:
        return 0
    write_list(parent / PLAN, plan.name, plan.metric, plan_rows(runs))
    if kept:
        kept.add(parent / run.id for run in runs)
    failed = False

    def report(outcome: Outcome, left: int, seconds: float) -> None:
        nonlocal failed
        failed |= bool(outcome.error)
        if kept:
            kept.add([parent / outcome.id])
        words = f"FAILED: {outcome.error} (logs/{outcome.id}.log)" if outcome.error else "done"
        print(f"{outcome.id}: {words}; {left} left{duration(seconds)}", flush=True)

    try:
        if pending:
            launch(plan, pending, costs, parent, parsed.address, report)
    except KeyboardInterrupt:
        print("Stopped. Start the same command again to continue.", flush=True)
        return 130
    folder = kept.path.parent if kept else parent
    planned = {run.id for run in runs}
    # Predictions are too large to keep: they are in the run folders, if these are on this machine.
    found = [replace(run, folder=parent / run.folder.name) for run in read_runs([folder]) if run.folder.name in planned]
    output = parsed.output or folder / "comparison"
    # Where runs failed, the baseline may be missing, but there are others to compare.
    path = write_comparison(found, output, title=f"runs of {plan.name}", baseline=None if failed else plan.baseline)
    print(f"Comparison: {path}")
    return 1 if failed else 0


def table(plan: Sweep, runs: list[PlannedRun], costs: dict[str, Cost], finished: int) -> str:
    """Return the plan as text, with a line for each combination."""
    header = ["combination", "seeds", "weights", "MFLOP per image", "estimated, s"]
    rows = [header]
    for run in runs:
        if run.seed == plan.seeds[0]:
            cost = costs[run.id]
            seconds = "" if math.isnan(cost.seconds) else f"{cost.seconds:,.0f}"
            name = run.id.rsplit("seed=", 1)[0].rstrip(",") or "the recipe"
            rows.append([name, str(len(plan.seeds)), f"{cost.params:,}", f"{cost.flops_per_image / 1e6:,.1f}", seconds])
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    total = sum(cost.seconds for cost in costs.values())
    return "\n".join(
        [*lines, f"{len(runs)} runs, {finished} of them done{duration(total, 'in all, one after the other')}"]
    )


def duration(seconds: float, words: str = "to go") -> str:
    """Return a time as text; empty if it is unknown."""
    if math.isnan(seconds):
        return ""
    minutes = seconds / 60
    return f", about {seconds:.0f} s {words}" if minutes < 2 else f", about {minutes:.0f} min {words}"
