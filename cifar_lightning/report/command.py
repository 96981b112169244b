"""`cifar-lightning report`: write a page that shows what one run or several learned."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from cifar_lightning.files import user_path
from cifar_lightning.report.comparison import comparison_sections
from cifar_lightning.report.findings import Findings, examine
from cifar_lightning.report.page import Page, write_page
from cifar_lightning.report.run import LoadedRun, load_run
from cifar_lightning.report.sections import run_sections
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["report"]

logger = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = ArgumentParser("cifar-lightning report", description="Shows what a run learned, on one page.")
    made.add_argument(
        "--run",
        type=user_path,
        action="append",
        required=True,
        metavar="FOLDER",
        help="run folder; several are compared",
    )
    made.add_argument(
        "--split",
        choices=("val", "test"),
        help="images to look at; default: test where every run was tested, else val",
    )
    made.add_argument(
        "--output", type=user_path, help="folder to write into; default: report/ in the run, or in . for several"
    )
    made.add_argument("--images", type=int, default=24, help="images in a gallery (default 24)")
    return made


def report(args: list[str]) -> int:
    """Write report.html, report.md and figures/.

    Args:
        args: the command line after `report`.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: for runs that cannot be reported on.
    """
    parsed = parser().parse_args(args)
    if parsed.images < 1:
        raise ValueError(f"Expected `--images` to be at least 1, got {parsed.images}.")
    runs = [load_run(folder) for folder in parsed.run]
    split = parsed.split or choose_split(runs)
    check_split(runs, split)
    found = []
    for run in runs:
        logger.info(f"Looking at {run.name} on its {split} images")
        found.append(examine(run, split))
    folder = parsed.output or (runs[0].folder / "report" if len(runs) == 1 else Path("report"))
    page = make_page(runs, found, parsed.images)
    path = write_page(page, folder, "report")
    logger.info(f"Report: {path}")
    return 0


def choose_split(runs: list[LoadedRun]) -> str:
    """The test images are looked at only where they have been already."""
    return "test" if all("test" in run.result for run in runs) else "val"


def check_split(runs: list[LoadedRun], split: str) -> None:
    """Makes sure that every run has images in the split.

    Raises:
        ValueError: naming the run that has none.
    """
    for run in runs:
        if split == "val" and run.data.val_size == 0:
            raise ValueError(
                f"Expected held-out images to report on, but {run.folder} was trained on all (`data.val_size: 0`). Run "
                f"`test --run {run.folder}` first, or ask for the test images with `--split test`."
            )


def make_page(runs: list[LoadedRun], found: list[Findings], images: int) -> Page:
    """One run alone, or a comparison of several, each of them after it."""
    if len(runs) == 1:
        return Page(f"{runs[0].name} on CIFAR-10", run_sections(runs[0], found[0], images))
    sections = comparison_sections(runs, found)
    for number, (run, findings) in enumerate(zip(runs, found, strict=True), start=1):
        sections += run_sections(run, findings, images, number)
    return Page(f"{len(runs)} runs on CIFAR-10", sections)
