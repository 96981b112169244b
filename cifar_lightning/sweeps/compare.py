"""The comparison of runs: statistics over seeds in tables, and charts, on one page."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.files import user_path, write_text_atomic
from cifar_lightning.pages import Page, Section, Text, write_page
from cifar_lightning.sweeps.dependence import dependence
from cifar_lightning.sweeps.groups import Group, RunRecord, group_runs, read_runs
from cifar_lightning.sweeps.sections import best_first, by_class, costs, curves, results, significance
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["compare", "compare_runs"]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = ArgumentParser(
        description="Compares runs: mean, standard deviation and interval over seeds, tests, and charts."
    )
    made.add_argument("folders", type=user_path, nargs="+", metavar="FOLDER", help="run folders, or folders of them")
    made.add_argument("--metric", help="what to compare by; default: test/acc where every run was tested, else val/acc")
    made.add_argument(
        "--baseline", help="label to test against: of a group, or the part in which the others differ from one"
    )
    made.add_argument("--output", type=user_path, default=Path("comparison"), help="folder to write into")
    return made


def compare(args: Sequence[str] | None = None) -> int:
    """Writes compare.html, compare.md, compare.csv and figures/.

    Args:
        args: the command line.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: when there is nothing to compare.
    """
    parsed = parser().parse_args(args)
    path = compare_runs(read_runs(parsed.folders), parsed.output, parsed.metric, baseline=parsed.baseline)
    print(f"Comparison: {path}")
    return 0


def compare_runs(
    found: Sequence[RunRecord],
    output: Path,
    metric: str | None = None,
    title: str = "runs",
    baseline: str | None = None,
) -> Path:
    """The same for runs that were read already.

    Raises:
        ValueError: when no run is finished, or none has the metric, or no group is the baseline.
    """
    groups = group_runs(found)
    finished = [run for run in found if run.finished]
    if not finished:
        raise ValueError(f"Expected finished runs to compare, got {len(found)} that are not: see their result.json.")
    if metric is None:
        metric = "test/acc" if all(run.metric("test/acc") is not None for run in finished) else "val/acc"
    if not any(group.values(metric) for group in groups):
        raise ValueError(
            f"Expected `--metric` to be one that the runs have, such as test/acc or val/acc, got {metric}."
        )
    groups = best_first(groups, metric)
    table = results(groups, metric)
    sections = [
        Section("Results", [Text(introduction(found, groups, metric)), table]),
        Section("Are the differences more than chance?", significance(groups, metric, baseline)),
        Section("What accuracy costs", costs(groups, metric)),
        Section("How it was reached", curves(groups)),
        Section("What it depends on", dependence(groups, metric)),
        Section("Where the errors lie", by_class(groups)),
    ]
    images = "SYNTHETIC images" if synthetic(found) else "CIFAR-10"
    page = Page(f"{len(found)} {title} on {images}", [section for section in sections if section.blocks])
    path = write_page(page, output, "compare")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.header, *table.rows])
    write_text_atomic(output / "compare.csv", text.getvalue())
    return path


def introduction(found: Sequence[RunRecord], groups: Sequence[Group], metric: str) -> str:
    """What is compared, in words."""
    unfinished = [run for run in found if not run.finished]
    images = "SYNTHETIC images, which say nothing about CIFAR-10" if synthetic(found) else "CIFAR-10"
    text = (
        f"{len(found)} runs in {len(groups)} groups on {images}; a group differs from the others in its settings, its "
        f"runs in their seeds. Sorted by {metric}, the best first. Intervals are of the mean, 95 %, by Student's t; "
        "one run has none."
    )
    return text + (f" {len(unfinished)} runs are not finished and count as such only." if unfinished else "")


def synthetic(found: Sequence[RunRecord]) -> bool:
    """Whether some of the runs have not seen CIFAR-10."""
    return any(run.result.get("data", {}).get("source") == "synthetic" for run in found)
