"""Groups of runs that differ in their seeds alone, and the metric that they are compared by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cifar_lightning.analysis.statistics import Summary, summarise
from cifar_lightning.comparison.records import RunRecord
from cifar_lightning.metrics import direction
from cifar_lightning.settings import short_text

__all__ = [
    "Comparison",
    "Group",
    "as_key",
    "best_first",
    "group_runs",
    "is_share",
    "mean_and_std",
    "names_of",
    "score_text",
    "with_unit",
]

LABELS = "label"
"""Key of a point that holds names, shown in place of other keys and values."""
MAX_NAMES = 4
"""Settings in a label: where more of them differ, groups are named by their runs."""
DEFAULT_METRICS = ("test/acc", "val/acc", "train/acc")
IMAGES = "images"
"""Key of a point for the images that a run was trained on, where only these differ."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone.

    Attributes:
        names: what distinguishes it from the other groups, one name for each setting that differs.
        point: the settings behind the names.
        runs: one for each seed.
    """

    names: tuple[str, ...]
    point: dict[str, Any]
    runs: list[RunRecord]

    @property
    def label(self) -> str:
        """Its names as one text."""
        return ", ".join(self.names) or "all runs"

    @property
    def finished(self) -> list[RunRecord]:
        """The runs that trained to their end."""
        return [run for run in self.runs if run.finished]

    def values(self, name: str) -> dict[int, float]:
        """Return a metric of each finished run that has it, by seed."""
        found = {run.seed: run.metric(name) for run in self.finished}
        return {seed: value for seed, value in found.items() if value is not None}

    def summary(self, name: str) -> Summary | None:
        """Return the statistics of a metric over the seeds; None where no run has it."""
        values = list(self.values(name).values())
        return summarise(values) if values else None

    def curves(self, name: str) -> list[list[float]]:
        """Return the curves of a metric over the epochs, one for each finished run that has it."""
        return [run.history[name] for run in self.finished if run.history.get(name)]


@dataclass(frozen=True)
class Comparison:
    """Groups of runs and the metric that they are compared by.

    Attributes:
        groups: best first.
        metric: name of the metric.
    """

    groups: list[Group]
    metric: str

    @classmethod
    def of(cls, found: Sequence[RunRecord], metric: str | None = None) -> Comparison:
        """Group runs and sort the groups by a metric.

        Args:
            found: the runs.
            metric: name of the metric; None takes the first of test/acc, val/acc and train/acc that all finished runs
                have.

        Raises:
            ValueError: when no run is finished, or none has the metric.
        """
        finished = [run for run in found if run.finished]
        if not finished:
            raise ValueError(
                f"Expected finished runs to compare, got {len(found)} that are not: see their result.json."
            )
        if metric is None:
            known = [name for name in DEFAULT_METRICS if all(run.metric(name) is not None for run in finished)]
            metric = known[0] if known else "val/acc"
        groups = group_runs(found)
        if not any(group.values(metric) for group in groups):
            raise ValueError(
                f"Expected `--metric` to be one that the runs have, such as test/acc or val/acc, got {metric}."
            )
        return cls(best_first(groups, metric), metric)

    @property
    def runs(self) -> list[RunRecord]:
        """The runs of all groups."""
        return [run for group in self.groups for run in group.runs]

    @property
    def is_synthetic(self) -> bool:
        """Whether a run was trained on other images than CIFAR-10."""
        return any(run.result.get("data", {}).get("source") == "synthetic" for run in self.runs)

    @property
    def factor(self) -> float:
        """What the metric is multiplied by to be shown: shares are shown in percent."""
        return 100 if is_share(self.metric) else 1

    @property
    def metric_with_unit(self) -> str:
        """The metric for the head of a column or an axis."""
        return with_unit(self.metric)

    def score(self, group: Group) -> str:
        """Return mean ± standard deviation of the metric over the seeds of a group."""
        return score_text(group.summary(self.metric), self.metric)


def best_first(groups: Sequence[Group], metric: str) -> list[Group]:
    """Return groups from the best mean of a metric to the worst, then those in which no run has it."""
    sign = 1 if direction(metric) == "min" else -1

    def rank(group: Group) -> tuple[bool, float]:
        summary = group.summary(metric)
        return (True, 0.0) if summary is None else (False, sign * summary.mean)

    return sorted(groups, key=rank)


def is_share(metric: str) -> bool:
    """Return whether a metric is a share, which is shown in percent."""
    return "acc" in metric


def with_unit(metric: str) -> str:
    """Return the name of a metric with its unit."""
    return f"{metric}, %" if is_share(metric) else metric


def score_text(summary: Summary | None, metric: str) -> str:
    """Return mean ± standard deviation of a metric in its unit."""
    return mean_and_std(summary) if is_share(metric) else mean_and_std(summary, 1, 4)


def mean_and_std(summary: Summary | None, factor: float = 100, places: int = 2) -> str:
    """Return mean ± standard deviation; empty without a summary."""
    if summary is None:
        return ""
    numbers = [summary.mean] if summary.std is None else [summary.mean, summary.std]
    return " ± ".join(f"{factor * number:,.{places}f}" for number in numbers)


def group_runs(found: Sequence[RunRecord]) -> list[Group]:
    """Return groups of runs with the same point, named by the keys in which any two points differ.

    Where runs with the same point were trained on different images, by their fingerprints, these are such a key too.
    """
    keys = list(dict.fromkeys(key for run in found for key in run.point))
    differing = [key for key in keys if len({as_key(run.point.get(key)) for run in found}) > 1]
    points = [{key: run.point.get(key) for key in differing} for run in found]
    images = [run.result.get("data", {}).get("fingerprint", "")[:8] for run in found]
    seen = {(as_key(point), image) for point, image in zip(points, images, strict=True) if image}
    if len(seen) > len({point for point, _ in seen}):
        points = [{**point, IMAGES: image} for point, image in zip(points, images, strict=True)]
    groups: dict[str, tuple[dict[str, Any], list[RunRecord]]] = {}
    for run, point in zip(found, points, strict=True):
        groups.setdefault(as_key(point), (point, []))[1].append(run)
    return [
        Group(
            names_of(point) if len(point) <= MAX_NAMES else (title_of(same),),
            point,
            sorted(same, key=lambda run: run.seed),
        )
        for point, same in groups.values()
    ]


def title_of(found: Sequence[RunRecord]) -> str:
    """Return the name of the first of some runs, such as cnn/version_0, and how many more there are."""
    title = "/".join(found[0].folder.absolute().parts[-2:])
    return title if len(found) == 1 else f"{title} and {len(found) - 1} more"


def as_key(value: Any) -> str:
    """Return a value that may hold lists as a text to compare."""
    return json.dumps(value, sort_keys=True)


def names_of(point: dict[str, Any]) -> tuple[str, ...]:
    """Return what distinguishes a group: its labels, and its other settings by the last part of their names."""
    names: list[str] = []
    for key, value in point.items():
        if key == LABELS:
            names += [str(label) for label in (value if isinstance(value, list) else [value])]
        else:
            names.append(f"{key.rsplit('.', 1)[-1]} {short_text(value)}")
    return tuple(names)
