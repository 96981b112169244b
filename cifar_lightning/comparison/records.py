"""Read the numbers of runs: from run folders, or from the list that a sweep keeps of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning import runs
from cifar_lightning.settings import is_setting

__all__ = ["KEPT", "PLAN", "SEED_KEYS", "RunRecord", "read_list", "read_runs"]

PLAN = "plan.json"
"""In the folder of a sweep: the settings that each of its runs has."""
KEPT = "runs.json"
"""The same with the result and the curves of every finished run, in place of the run folders."""
SEED_KEYS = ("seed_everything", "data.seed")
"""Options in which the runs of one group differ."""
DIVERGED_LOSS = 1.1 * math.log(10)
"""Cross-entropy in nats, a tenth above that of guessing among ten classes."""


@dataclass(frozen=True)
class RunRecord:
    """The numbers of one run.

    Attributes:
        folder: where the run is, or was.
        seed: its seed.
        point: the values of the sweep's axes, or all settings of the run.
        result: `result.json`.
        history: curves over epochs by name, NaN where an epoch has no value.
    """

    folder: Path
    seed: int
    point: dict[str, Any]
    result: dict[str, Any]
    history: dict[str, list[float]]

    @property
    def finished(self) -> bool:
        """Whether its training ran to its end."""
        return self.result.get("status") in (runs.COMPLETED, runs.EARLY_STOPPED)

    @property
    def diverged(self) -> bool:
        """Whether it failed, or ended with a loss that is not finite or clearly above that of guessing."""
        loss = self.metric("train/loss")
        return self.result.get("status") == runs.FAILED or (
            self.finished and (loss is None or not math.isfinite(loss) or loss > DIVERGED_LOSS)
        )

    def metric(self, name: str) -> float | None:
        """Return a final metric such as test/acc, corruptions/acc, train/loss, params or seconds; None if unknown.

        The monitored metric is that of the best checkpoint, other validation metrics are of the last epoch.
        """
        if name in ("params", "flops_per_image", "depth"):
            return self.result.get(name)
        fit = self.result.get("fit", {})
        if name in ("seconds", "epochs", "images_per_second", "training_flops", "executed_flops"):
            return fit.get(name)
        best = fit.get("best") or {}
        if name == best.get("monitor"):
            return best["score"]
        if name == "corruptions/acc":
            return self.result.get("corruptions", {}).get("mean")
        if name.startswith("test/"):
            return self.result.get("test", {}).get("metrics", {}).get(name)
        return fit.get("metrics", {}).get(name)


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """Read runs.

    Args:
        paths: run folders, folders of run folders, and lists of finished runs or folders that hold one.

    Raises:
        ValueError: when one of them holds no run.
    """
    return [run for path in paths for run in read_path(path)]


def read_path(path: Path) -> list[RunRecord]:
    """Read the runs of one path."""
    path = runs.run_folder(path)
    file = path / KEPT if path.is_dir() else path
    if file.is_file():
        rows = [row for row in read_list(file)["runs"] if "result" in row]
        return [kept_run(file.parent, row) for row in sorted(rows, key=lambda row: row["id"])]
    if (path / runs.CONFIG).is_file():
        return [read_run(path, None)]
    plan = path / PLAN
    points = {row["id"]: row["point"] for row in read_list(plan)["runs"]} if plan.is_file() else None
    names = (runs.CONFIG,) if points is None else (runs.CONFIG, runs.RESULT)
    folders = sorted({found.parent for name in names for found in path.glob(f"*/{name}")})
    if not folders:
        raise ValueError(f"Expected a run or a folder of runs, got {path}, which holds no {names[-1]}.")
    if points is None:
        return [read_run(folder, None) for folder in folders]
    return [read_run(folder, points[folder.name]) for folder in folders if folder.name in points]


def read_list(path: Path) -> dict[str, Any]:
    """Return the plan of a sweep, or its list of finished runs.

    Raises:
        ValueError: when the file is neither.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for row in found["runs"]:
            if not (isinstance(row["id"], str) and isinstance(row["point"], dict)):
                raise TypeError("a run without id and point")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Expected the runs of a sweep in {path}, got: {error!r}. Start the sweep again.") from error
    return found


def read_run(folder: Path, point: dict[str, Any] | None) -> RunRecord:
    """Read a run folder; the point of a run without a plan is all of its settings."""
    run = runs.Run(folder)
    config = run.config if (folder / runs.CONFIG).is_file() else {}
    if point is None:
        settings = runs.flatten(config)
        point = {key: value for key, value in settings.items() if is_setting(key) and key not in SEED_KEYS}
    seed = int(config.get("seed_everything") or run.result.get("seed") or 0)
    return RunRecord(folder, seed, point, run.result, run.history())


def kept_run(parent: Path, row: Mapping[str, Any]) -> RunRecord:
    """Return a run from the list of finished runs."""
    columns = row.get("history", {}).items()
    history = {name: [math.nan if value is None else float(value) for value in values] for name, values in columns}
    return RunRecord(parent / row["id"], row["seed"], row["point"], row["result"], history)
