"""Read a sweep, a YAML file with recipes, axes and seeds, and expand it to runs whose ids depend on their settings."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from cifar_lightning.files import recipe
from cifar_lightning.metrics import direction
from cifar_lightning.settings import short_text
from cifar_lightning.usage.config_files import read_config
from cifar_lightning.usage.parser import PARSER_ERRORS, explain_config, in_short

__all__ = ["PlannedRun", "Prune", "Sweep", "expand", "load_sweep"]

CONFIG, LABEL = "config", "label"
"""Keys of an axis that are not options: recipes (a YAML file, or a list of them in which later ones override earlier
ones), and the name of a point, shown in place of its other keys."""
Axis = dict[str, list[Any]] | list[dict[str, Any]]
MAX_SLUG_LENGTH = 90


@dataclass(frozen=True)
class Prune:
    """When to compare unfinished runs; see `callbacks.pruning.Pruning`."""

    first_epochs: int = 1
    factor: int = 3


@dataclass(frozen=True)
class Sweep:
    """Every combination of the values on some axes, each with every seed.

    Args:
        name: Runs go to lightning_logs/<name>.
        axes: Settings in which runs differ; axes are combined with each other. An axis maps dotted keys of the
            configuration to values, several keys value by value; or it is a list of points, each with its keys and
            values. The key `config` takes recipes, the key `label` a name for a point.
        configs: Configuration files of every run, after those of an axis.
        options: Keys of the configuration, dotted, and their values in every run.
        samples: Take so many random combinations in place of all, the same ones each time, with each point of an axis
            about equally often: a random search, from which the effect of each axis can be estimated.
        seeds: Seeds of each combination.
        metric: Validation metric to judge runs by.
        mode: Whether high ("max") or low ("min") values of it are good; "auto" follows from the metric.
        test: Run `test` on each finished run.
        predict: Run `predict` on each finished run, for comparisons image by image.
        baseline: Label of a point that the others on its axis are tested against; null tests every two groups, or of
            many the best against the others.
        cpus: Processor cores of each device of a run, and its threads.
        runs_per_gpu: Runs that share a GPU: a small network leaves most of it idle.
        retries: How often a run that dies (is killed, runs out of memory) is started again. A run that ends with an
            error is not.
        prune: End runs early that do worse than the others: after `first_epochs` and every `factor` times as many, one
            run in `factor` of those that got there continues. Null lets all of them finish.
        max_runs: Most runs that the plan may have.
        max_hours: Most hours that the plan may take, by its estimate; null for no limit.
    """

    name: str
    axes: list[Axis]
    configs: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    samples: int | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    metric: str = "val/acc"
    mode: Literal["auto", "max", "min"] = "auto"
    test: bool = True
    predict: bool = False
    baseline: str | None = None
    cpus: int = 1
    runs_per_gpu: int = 1
    retries: int = 1
    prune: Prune | None = None
    max_runs: int = 200
    max_hours: float | None = None

    def __post_init__(self) -> None:
        """Check what the types do not.

        Raises:
            ValueError: with all problems in one message.
        """
        problems = []
        if not re.fullmatch(r"[\w.+-]+", self.name):
            problems.append(f"Expected `name` of letters, digits and . _ + -, got {self.name!r}.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            problems.append(f"Expected `seeds` to be different numbers of at least 0, got {self.seeds}.")
        if not re.fullmatch(r"val/[\w/]+", self.metric):
            problems.append(
                "Expected `metric` to be a validation metric, such as val/acc: test images must not choose anything; "
                f"got {self.metric!r}."
            )
        if self.mode not in ("auto", direction(self.metric)):
            problems.append(f"Expected `mode` {direction(self.metric)} or auto for {self.metric}, got {self.mode}.")
        for name, least in (("cpus", 1), ("runs_per_gpu", 1), ("retries", 0), ("max_runs", 1)):
            if getattr(self, name) < least:
                problems.append(f"Expected `{name}` to be at least {least}, got {getattr(self, name)}.")
        if self.prune and (self.prune.first_epochs < 1 or self.prune.factor < 2):
            problems.append(
                f"Expected `prune` with first_epochs of at least 1 and a factor of at least 2, got {self.prune}."
            )
        if self.baseline is not None and not any({self.baseline} < set(labels_of(axis)) for axis in self.axes):
            problems.append(f"Expected `baseline` to be the label of a point beside others, got {self.baseline!r}.")
        problems += axis_problems(self.axes) or sample_problems(self.axes, self.samples)
        if problems:
            raise ValueError(" ".join(problems))

    @property
    def stages(self) -> list[str]:
        """Commands that follow the training of a run: of "test" and "predict"."""
        return [stage for stage in ("test", "predict") if getattr(self, stage)]


def axis_problems(axes: list[Axis]) -> list[str]:
    """Return the problems of the axes of a sweep."""
    problems = []
    # The points of one axis may share keys.
    keys = [key for axis in axes for key in (axis if isinstance(axis, dict) else set().union(*axis))]
    if twice := sorted({key for key in keys if keys.count(key) > 1 and key != LABEL}):
        problems.append(f"Expected each key on one axis, got {', '.join(twice)} on several.")
    if reserved := sorted({"seed_everything", "name", "version", "save_dir", "run", "ckpt_path"} & set(keys)):
        problems.append(
            f"Expected `axes` without {', '.join(reserved)}: seeds belong into `seeds`, and settings name the folders."
        )
    for axis in axes:
        if not axis or not all(axis.values() if isinstance(axis, dict) else axis):
            problems.append(f"Expected every axis to have keys and values, got {axis}.")
        elif isinstance(axis, dict) and len({len(values) for values in axis.values()}) > 1:
            counts = ", ".join(f"{len(values)} of {key}" for key, values in axis.items())
            problems.append(f"Expected the keys of one axis to have equally many values, got {counts}.")
    return problems


def sample_problems(axes: list[Axis], samples: int | None) -> list[str]:
    """Return what is wrong with a number of random combinations."""
    most = math.prod(len(points_of(axis)) for axis in axes)
    if samples is None or 1 <= samples <= most:
        return []
    return [f"Expected `samples` from 1 to {most}, the combinations of the axes, got {samples}."]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        id: name of its folder, which depends on the settings alone.
        configs: its configuration files; later ones override earlier ones.
        options: keys and values that override the files.
        point: keys of the axes with the values of this run; "label" holds a list, one label for each axis that has any.
        seed: its seed.
    """

    id: str
    configs: tuple[str, ...]
    options: dict[str, Any]
    point: dict[str, Any]
    seed: int

    @property
    def combination(self) -> tuple[tuple[str, ...], dict[str, Any]]:
        """What all seeds of a combination have in common."""
        return self.configs, self.options

    def arguments(self) -> list[str]:
        """Return the command line after `fit`, without the folder."""
        files = [part for config in self.configs for part in ("--config", config)]
        # A class comes before its arguments: it resets them.
        keys = sorted(self.options, key=lambda key: key.count("."))
        options = [f"--{key}={as_text(self.options[key])}" for key in keys]
        return [*files, *options, f"--seed_everything={self.seed}"]


def as_text(value: Any) -> str:
    """Return a value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def load_sweep(path: Path) -> Sweep:
    """Read a sweep.

    Args:
        path: a YAML file with the arguments of `Sweep`, here or among those of the package.

    Raises:
        ValueError: when the file is missing, is not YAML, or is not a sweep.
    """
    path = Path(recipe(str(path)))
    keys = read_config(path, "a sweep")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Sweep)
    try:
        return Sweep(**parser.parse_path(path).as_dict())
    except PARSER_ERRORS as error:
        message = explain_config(parser, keys, str(path)) or f"Expected a sweep in {path}, got: {in_short(error)}"
        raise ValueError(message) from error


def expand(sweep: Sweep) -> list[PlannedRun]:
    """Return all runs of a sweep, the seeds of one combination next to each other.

    Raises:
        ValueError: when a recipe is missing, two combinations are the same, or there are more than `max_runs`.
    """
    axes = [points_of(axis) for axis in sweep.axes]
    points = [merge(parts) for parts in (drawn(axes, sweep.samples) if sweep.samples else itertools.product(*axes))]
    if len(points) * len(sweep.seeds) > sweep.max_runs:
        raise ValueError(
            f"Expected at most `max_runs` {sweep.max_runs} runs, got {len(points)} combinations of {len(sweep.seeds)} "
            "seeds. Remove values or seeds, or raise the limit."
        )
    contents: dict[str, Any] = {}
    runs = []
    for point, shown in points:
        given = point.get(CONFIG, [])
        configs = tuple(map(recipe, [*([given] if isinstance(given, str) else given), *sweep.configs]))
        options = {**sweep.options, **{key: value for key, value in point.items() if key not in (CONFIG, LABEL)}}
        for config in configs:
            contents.setdefault(config, read_yaml(Path(config)))
        # The contents of a file count, not its name and comments: a changed recipe makes new runs.
        settings = json.dumps([[contents[config] for config in configs], options], sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        name = slug(shown)
        runs += [PlannedRun(f"{name}seed={seed}-{digest}", configs, options, shown, seed) for seed in sweep.seeds]
    ids = [run.id for run in runs]
    if len(set(ids)) < len(ids):
        same = sorted({run.id for run in runs if ids.count(run.id) > 1})
        raise ValueError(f"Expected different runs, got some of the axes' combinations twice: {', '.join(same)}.")
    return runs


def drawn(axes: list[list[dict[str, Any]]], samples: int) -> list[tuple[dict[str, Any], ...]]:
    """Return different random combinations of points, with each point of an axis about equally often."""
    rng = random.Random(0)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < samples:
        columns = [rng.sample([i % len(axis) for i in range(samples)], samples) for axis in axes]
        found |= dict.fromkeys(list(zip(*columns, strict=True))[: samples - len(found)])
    return [tuple(axis[i] for axis, i in zip(axes, row, strict=True)) for row in found]


def labels_of(axis: Axis) -> list[str]:
    """Return the labels of the points of one axis."""
    found = axis.get(LABEL, []) if isinstance(axis, dict) else [point[LABEL] for point in axis if LABEL in point]
    return [str(label) for label in found]


def points_of(axis: Axis) -> list[dict[str, Any]]:
    """Return the points of one axis."""
    if isinstance(axis, list):
        return axis
    return [dict(zip(axis, values, strict=True)) for values in zip(*axis.values(), strict=True)]


def merge(parts: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all keys that one combination of points sets, and what is shown of it: labels, or else keys and values."""
    point: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    for part in parts:
        point |= part
        shown |= {LABEL: [*shown.get(LABEL, []), str(part[LABEL])]} if LABEL in part else part
    return point, shown


def read_yaml(path: Path) -> Any:
    """Return the contents of a recipe.

    Raises:
        ValueError: when there is no such file.
    """
    return read_config(path, "a recipe")


def slug(point: dict[str, Any]) -> str:
    """Return the start of a folder name for a point, such as `config=cnn,lr=0.1,`."""
    parts = [
        "-".join(map(short_text, value)) if key == LABEL else f"{key.rsplit('.', 1)[-1]}={short_text(value)}"
        for key, value in point.items()
    ]
    return "".join(f"{part}," for part in parts)[:MAX_SLUG_LENGTH]
