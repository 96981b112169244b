"""`scripts/sweep.py`: plans a sweep, runs what is not done, and ends in the comparison."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cifar_lightning.files import user_path, write_bytes_atomic, write_text_atomic
from cifar_lightning.runs import HISTORY, RESULT
from cifar_lightning.sweeps.check import Cost, check_runs
from cifar_lightning.sweeps.compare import compare_runs
from cifar_lightning.sweeps.execute import Outcome, done
from cifar_lightning.sweeps.groups import PLAN, RunRecord, read_runs
from cifar_lightning.sweeps.launch import launch
from cifar_lightning.sweeps.plan import PlannedRun, Sweep, expand, load_sweep
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["sweep"]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = ArgumentParser(
        description="Runs every combination of a sweep with every seed, and compares them. A sweep that was stopped "
        "goes on when it is started again: runs that are done stay as they are."
    )
    made.add_argument("sweep", type=user_path, metavar="YAML", help="the sweep; configs/sweeps/ has some")
    made.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    made.add_argument(
        "--address", help="of a Ray cluster to run on, such as first:6379; default: this machine, without Ray"
    )
    made.add_argument("--save_dir", type=user_path, default=Path("lightning_logs"), help="folder that every node sees")
    made.add_argument(
        "--results",
        type=user_path,
        help="folder to keep the numbers of finished runs in, such as docs/results: a run that is there counts as done",
    )
    made.add_argument("--output", type=user_path, help="folder of the comparison; default: comparison/ beside the runs")
    made.add_argument("--no-estimate", action="store_true", help="time no steps first; max_hours is then unchecked")
    return made


def sweep(args: Sequence[str] | None = None) -> int:
    """Runs a sweep.

    Args:
        args: the command line.

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
    kept = parsed.results / plan.name if parsed.results else None
    pending = [run for run in runs if not (kept and done(kept / run.id, [])) and not done(parent / run.id, plan.stages)]
    print(table(plan, runs, costs, len(runs) - len(pending)), flush=True)
    if parsed.dry_run:
        return 0
    for folder in [parent, *([kept] if kept else [])]:
        write_plan(folder / PLAN, plan, runs)
    if kept:
        for run in runs:
            keep(parent / run.id, kept / run.id, plan.stages)
    outcomes: list[Outcome] = []

    def tell(outcome: Outcome, left: int, seconds: float) -> None:
        outcomes.append(outcome)
        if kept:
            keep(parent / outcome.id, kept / outcome.id, plan.stages)
        words = f"FAILED: {outcome.error} (logs/{outcome.id}.log)" if outcome.error else "done"
        print(f"{outcome.id}: {words}; {left} left{duration(seconds)}", flush=True)

    try:
        if pending:
            launch(plan, pending, costs, parent, parsed.address, tell)
    except KeyboardInterrupt:
        print("Stopped. Start the same command again to go on where it was.", flush=True)
        return 130
    folder = kept or parent
    found = [with_predictions(run, parent) for run in read_runs([folder])]
    output = parsed.output or folder / "comparison"
    failed = any(outcome.error for outcome in outcomes)
    # Where runs failed, there may be no baseline, and there is something to compare all the same.
    path = compare_runs(found, output, title=f"runs of {plan.name}", baseline=None if failed else plan.baseline)
    print(f"Comparison: {path}")
    return 1 if failed else 0


def keep(folder: Path, kept: Path, stages: list[str]) -> None:
    """Copies the numbers of a run that is done; `result.json` last, which says that all is there."""
    if done(folder, stages):
        kept.mkdir(parents=True, exist_ok=True)
        for name in (HISTORY, RESULT):
            if not (folder / name).is_file():  # it diverged in its first epoch
                continue
            write_bytes_atomic(kept / name, (folder / name).read_bytes())


def with_predictions(run: RunRecord, parent: Path) -> RunRecord:
    """The same run where its predictions are, which are too large to keep, if they are on this machine."""
    here = parent / run.folder.name
    return replace(run, folder=here) if (here / "predictions").is_dir() else run


def write_plan(path: Path, plan: Sweep, runs: list[PlannedRun]) -> None:
    """Writes what each run stands for, which a comparison reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": run.id, "point": run.point, "seed": run.seed, "arguments": run.arguments()} for run in runs]
    write_text_atomic(path, json.dumps({"name": plan.name, "metric": plan.metric, "runs": rows}, indent=1) + "\n")


def table(plan: Sweep, runs: list[PlannedRun], costs: dict[str, Cost], finished: int) -> str:
    """The plan, a line for each combination."""
    header = ["combination", "seeds", "weights", "MFLOP an image", "estimated, s"]
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
    """A time for people; nothing where it is not known."""
    if math.isnan(seconds):
        return ""
    minutes = seconds / 60
    return f", about {seconds:.0f} s {words}" if minutes < 2 else f", about {minutes:.0f} min {words}"
