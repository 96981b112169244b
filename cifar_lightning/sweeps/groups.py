"""Runs read back from their folders, grouped by what differs between them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning import runs
from cifar_lightning.sweeps.plan import LABEL, short

__all__ = ["Group", "RunRecord", "group_runs", "read_runs"]

PLAN = "plan.json"
"""In the folder of a sweep: what each of its runs stands for."""
OWN = ("seed_everything", "run", "ckpt_path", "version", "save_dir", "name", "data.seed")
"""What tells the runs of one group apart."""
CHANGES_NO_NUMBER = (
    "checkpoint.dirpath",
    "checkpoint.filename",
    "checkpoint.save_last",
    "checkpoint.verbose",
    "checkpoint_every_n_steps",
    "data.download",
    "data.eval_batch_size",
    "data.root",  # other images in it are another matter: see `group_runs`
    "early_stopping.log_rank_zero_only",
    "early_stopping.verbose",
    "figures",
    "finite.every_n_steps",
    "layers",
    "trainer.barebones",
    "trainer.default_root_dir",
    "trainer.detect_anomaly",
    "trainer.enable_autolog_hparams",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.inference_mode",
    "trainer.limit_predict_batches",
    "trainer.log_every_n_steps",
    "trainer.logger",
    "trainer.max_time",  # a training that it stops is not finished
    "trainer.model_registry",
    "trainer.num_sanity_val_steps",
    "trainer.profiler",
)
"""Options, or groups of them, that change no number of a finished run: where and how the work is done, and what is
watched. What changes the rounding, such as `precision`, `devices` or `model.compile`, changes numbers."""
IMAGES = "images"
DIVERGED = 1.1 * math.log(10)
"""Cross-entropy in nats, a tenth above that of guessing among ten classes: who has learned nothing is below it."""


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it.

    Attributes:
        folder: where it lies.
        seed: its seed.
        point: what it stands for: the values of the sweep's axes, or all of its configuration.
        result: `result.json`.
        history: curves over epochs by name.
    """

    folder: Path
    seed: int
    point: dict[str, Any]
    result: dict[str, Any]
    history: dict[str, list[float]]

    @property
    def finished(self) -> bool:
        """Whether its training came to an end of its own."""
        return self.result.get("status") in (runs.COMPLETED, runs.EARLY_STOPPED)

    @property
    def diverged(self) -> bool:
        """Whether it broke off, or ended with a loss that is not finite or clearly above that of guessing."""
        loss = self.metric("train/loss")
        return self.result.get("status") == runs.FAILED or (
            self.finished and (loss is None or not math.isfinite(loss) or loss > DIVERGED)
        )

    def metric(self, name: str) -> float | None:
        """A final metric such as test/acc, train/loss, params, flops_per_image or seconds; None where it is not known.

        Validation metrics are those of the checkpoint that would be tested, as `fit` ended with it.
        """
        if name in ("params", "flops_per_image", "depth"):
            return self.result.get(name)
        fit = self.result.get("fit", {})
        if name in ("seconds", "epochs", "images_per_second"):
            return fit.get(name)
        best = fit.get("best") or {}
        if name == best.get("monitor"):
            return best["score"]
        if name.startswith("test/"):
            return self.result.get("test", {}).get("metrics", {}).get(name)
        return fit.get("metrics", {}).get(name)


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seeds alone.

    Attributes:
        label: what distinguishes it from the other groups.
        point: the values behind the label.
        runs: one for each seed.
    """

    label: str
    point: dict[str, Any]
    runs: list[RunRecord]

    def values(self, name: str) -> dict[int, float]:
        """A metric of each finished run that has it, by seed."""
        found = {run.seed: run.metric(name) for run in self.runs if run.finished}
        return {seed: value for seed, value in found.items() if value is not None}


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Reads run folders, and all runs in folders of runs; of those of a sweep, `result.json` is enough.

    Raises:
        ValueError: when one of them holds no run.
    """
    found = []
    for folder in folders:
        if (folder / runs.CONFIG).is_file():
            found.append(read_run(folder, {}))
            continue
        plan = read_plan(folder / PLAN)
        file = runs.RESULT if plan else runs.CONFIG
        inside = sorted({path.parent for name in (file, runs.CONFIG) for path in folder.glob(f"*/{name}")})
        if not inside:
            raise ValueError(f"Expected a run or a folder of runs, got {folder}, which holds no {file}.")
        found += [read_run(path, plan) for path in inside if not plan or path.name in plan]
    return found


def read_plan(path: Path) -> dict[str, Any]:
    """What each run of a sweep stands for, by id; empty where there is no plan.

    Raises:
        ValueError: when the file is no plan.
    """
    if not path.is_file():
        return {}
    try:
        return {run["id"]: run["point"] for run in json.loads(path.read_text(encoding="utf-8"))["runs"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Expected the plan of a sweep in {path}, got: {error!r}. Start the sweep again.") from error


def read_run(folder: Path, plan: dict[str, Any]) -> RunRecord:
    """One run; without a plan its point is its whole configuration."""
    run = runs.Run(folder)
    config = run.config if (folder / runs.CONFIG).is_file() else {}
    point = plan.get(folder.name) or {key: value for key, value in runs.flatten(config).items() if is_setting(key)}
    seed = int(config.get("seed_everything") or run.result.get("seed") or 0)
    return RunRecord(folder, seed, point, run.result, run.history())


def is_setting(key: str) -> bool:
    """Return whether runs that differ in an option, named with dots, belong to different groups."""
    return not any(key == free or key.startswith(f"{free}.") for free in (*OWN, *CHANGES_NO_NUMBER))


def group_runs(found: Sequence[RunRecord]) -> list[Group]:
    """Return groups of runs with the same point, labelled by the keys in which any two points differ.

    Where runs with the same point were trained on different images, by their fingerprints, these are such a key too.
    """
    keys = list(dict.fromkeys(key for run in found for key in run.point))
    differing = [key for key in keys if len({as_key(run.point.get(key)) for run in found}) > 1]
    points = [{key: run.point.get(key) for key in differing} for run in found]
    images = [run.result.get("data", {}).get("fingerprint", "")[:8] for run in found]
    seen = {(as_key(point), image) for point, image in zip(points, images, strict=True) if image}
    if len(seen) > len({point for point, _ in seen}):
        differing.append(IMAGES)
        points = [{**point, IMAGES: image} for point, image in zip(points, images, strict=True)]
    groups: dict[str, list[RunRecord]] = {}
    for run, point in zip(found, points, strict=True):
        groups.setdefault(as_key(point), []).append(run)
    return [
        Group(
            label=label(point, differing),
            point=point,
            runs=sorted(groups[key], key=lambda run: run.seed),
        )
        for key, point in {as_key(point): point for point in points}.items()
    ]


def as_key(value: Any) -> str:
    """A value that may hold lists, to compare."""
    return json.dumps(value, sort_keys=True)


def label(point: dict[str, Any], keys: Sequence[str]) -> str:
    """What distinguishes a group, for people."""
    words = [str(point[key]) if key == LABEL else f"{key.rsplit('.', 1)[-1]} {short(point.get(key))}" for key in keys]
    return ", ".join(words) or "all runs"
