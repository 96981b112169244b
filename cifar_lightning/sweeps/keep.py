"""Keep the numbers of finished runs in one file, to commit or to carry to another machine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cifar_lightning.comparison.records import read_list
from cifar_lightning.files import write_text_atomic
from cifar_lightning.runs import Run
from cifar_lightning.sweeps.execute import done
from cifar_lightning.sweeps.plan import PlannedRun, Sweep

__all__ = ["KeptRuns", "plan_rows", "write_list"]


class KeptRuns:
    """The list of the finished runs of a sweep, each with its `result.json` unchanged and its curves as columns.

    Args:
        path: the file, which need not exist.
        sweep: the sweep.
        planned: its runs.
    """

    def __init__(self, path: Path, sweep: Sweep, planned: list[PlannedRun]) -> None:
        self.path, self._sweep = path, sweep
        self._plan = {row["id"]: row for row in plan_rows(planned)}
        self._added: dict[str, dict[str, Any]] = {}

    def ids(self) -> set[str]:
        """Return the ids of the runs in the file."""
        return {row["id"] for row in read_list(self.path)["runs"]} if self.path.is_file() else set()

    def add(self, folders: Iterable[Path]) -> None:
        """Add those runs to the file that are done; entries of other processes, and of earlier plans, stay."""
        finished = [folder for folder in folders if done(folder, self._sweep.stages)]
        for folder in finished:
            run = Run(folder)
            self._added[folder.name] = {**self._plan[folder.name], "result": run.result, "history": columns(run)}
        if finished:
            there = read_list(self.path)["runs"] if self.path.is_file() else []
            rows = {row["id"]: row for row in there} | self._added
            write_list(self.path, self._sweep.name, self._sweep.metric, [rows[id_] for id_ in sorted(rows)])


def plan_rows(planned: Iterable[PlannedRun]) -> list[dict[str, Any]]:
    """Return the settings of each run."""
    return [{"id": run.id, "seed": run.seed, "point": run.point, "arguments": run.arguments()} for run in planned]


def columns(run: Run) -> dict[str, list[float | None]]:
    """Return the columns of `metrics.csv`, null where a value is missing or not finite."""
    return {
        name: [None if not math.isfinite(value) else int(value) if value.is_integer() else value for value in values]
        for name, values in run.history().items()
    }


def write_list(path: Path, name: str, metric: str, rows: list[dict[str, Any]]) -> None:
    """Write the runs of a sweep as JSON, one run per line."""
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f'"name": {json.dumps(name)},\n"metric": {json.dumps(metric)}'
    write_text_atomic(path, f'{{\n{head},\n"runs": [\n{lines}\n]\n}}\n')
