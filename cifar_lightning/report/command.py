"""`cifar-lightning report`: write a page about one run or several."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.files import user_path
from cifar_lightning.pages import Page, write_page
from cifar_lightning.report.comparison import comparison_sections
from cifar_lightning.report.examination import Examination
from cifar_lightning.report.sections import run_sections
from cifar_lightning.runs import Run, run_folder
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["report"]

logger = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = ArgumentParser("cifar-lightning report", description="Write one page about what a run learned.")
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
        args: The command line after `report`.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: If a run cannot be read, or has no images to report on.
    """
    parsed = parser().parse_args(args)
    if parsed.images < 1:
        raise ValueError(f"Expected `--images` to be at least 1, got {parsed.images}.")
    runs = [Run(run_folder(given)) for given in parsed.run]
    split = parsed.split or choose_split(runs)
    exams = [Examination(run, split, parsed.images) for run in runs]
    for exam in exams:
        check_images(exam)
    folder = parsed.output or (runs[0].folder / "report" if len(runs) == 1 else Path("report"))
    path = write_page(make_page(exams), folder, "report")
    logger.info(f"Report: {path}")
    return 0


def choose_split(runs: Sequence[Run]) -> str:
    """Return "test" if every run was tested already, else "val"."""
    return "test" if all("test" in run.result for run in runs) else "val"


def check_images(exam: Examination) -> None:
    """Check that there are images to report on.

    Raises:
        ValueError: If the run has no validation images and the report is about these.
    """
    if exam.split == "val" and exam.data.val_size == 0:
        folder = exam.run.folder
        raise ValueError(
            f"Expected held-out images to report on, but {folder} was trained on all (`data.val_size: 0`). Run "
            f"`test --run {folder}` first, or ask for the test images with `--split test`."
        )


def make_page(exams: Sequence[Examination]) -> Page:
    """Return the page about one run, or about several and their comparison."""
    images = "SYNTHETIC images" if any(exam.is_synthetic for exam in exams) else "CIFAR-10"
    for exam in exams:
        logger.info(f"Evaluating {exam.name} on its {exam.split} images")
    if len(exams) == 1:
        return Page(f"{exams[0].name} on {images}", run_sections(exams[0]))
    return Page(f"{len(exams)} runs on {images}", comparison_sections(exams))
