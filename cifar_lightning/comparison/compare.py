"""The command `compare`, and the page that it writes."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.comparison.charts import accuracy_by_class, costs, curves
from cifar_lightning.comparison.dependence import dependence
from cifar_lightning.comparison.groups import Comparison
from cifar_lightning.comparison.records import RunRecord, read_runs
from cifar_lightning.comparison.tables import results, significance
from cifar_lightning.files import user_path, write_text_atomic
from cifar_lightning.pages import Page, Section, Text, write_page
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["compare", "sections_of", "write_comparison"]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = ArgumentParser(
        "cifar-lightning compare",
        description="Compare runs: mean, standard deviation and interval over seeds, tests, and charts.",
    )
    made.add_argument(
        "folders",
        type=user_path,
        nargs="+",
        metavar="FOLDER",
        help="run folders, folders of them, or lists of finished runs (runs.json)",
    )
    made.add_argument("--metric", help="what to compare by; default: test/acc where every run was tested, else val/acc")
    made.add_argument("--baseline", help="label to test against: of a group, or one of the names in a label")
    made.add_argument("--output", type=user_path, default=Path("comparison"), help="folder to write into")
    return made


def compare(args: Sequence[str]) -> int:
    """Write compare.html, compare.md, compare.csv and figures/.

    Args:
        args: the command line after `compare`.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: when there is nothing to compare.
    """
    parsed = parser().parse_args(args)
    path = write_comparison(read_runs(parsed.folders), parsed.output, parsed.metric, baseline=parsed.baseline)
    print(f"Comparison: {path}")
    return 0


def write_comparison(
    found: Sequence[RunRecord],
    output: Path,
    metric: str | None = None,
    title: str = "runs",
    baseline: str | None = None,
) -> Path:
    """Write the comparison of runs.

    Args:
        found: the runs.
        output: folder to write into.
        metric: name of the metric; None chooses one.
        title: what the runs are.
        baseline: label to test against.

    Returns:
        The HTML file.

    Raises:
        ValueError: when no run is finished, or none has the metric, or no group is the baseline.
    """
    comparison = Comparison.of(found, metric)
    images = "SYNTHETIC images" if comparison.is_synthetic else "CIFAR-10"
    page = Page(f"{len(found)} {title} on {images}", sections_of(comparison, baseline))
    path = write_page(page, output, "compare")
    table = results(comparison)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.header, *table.rows])
    write_text_atomic(output / "compare.csv", text.getvalue())
    return path


def sections_of(comparison: Comparison, baseline: str | None = None) -> list[Section]:
    """Return the sections of a comparison that have something to show.

    Raises:
        ValueError: when no group is the baseline.
    """
    sections = [
        Section("Results", [Text(introduction(comparison)), results(comparison)]),
        Section("Significance", significance(comparison, baseline)),
        Section("Accuracy and cost", costs(comparison)),
        Section("Training curves", curves(comparison)),
        Section("Dependence on settings", dependence(comparison)),
        Section("Accuracy of each class", accuracy_by_class(comparison)),
    ]
    return [section for section in sections if section.blocks]


def introduction(comparison: Comparison) -> str:
    """Return what is compared, as a paragraph."""
    images = "SYNTHETIC images, which say nothing about CIFAR-10" if comparison.is_synthetic else "CIFAR-10"
    runs = comparison.runs
    unfinished = sum(not run.finished for run in runs)
    text = (
        f"{len(runs)} runs in {len(comparison.groups)} groups on {images}. Groups differ in their settings, the runs "
        f"of a group in their seeds. Sorted by {comparison.metric}, best first. Intervals are of the mean, 95 %, by "
        "Student's t; one run has none."
    )
    return text + (f" {unfinished} runs are not finished; only their number is shown." if unfinished else "")
