"""Several runs on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cifar_lightning.analysis.charts import plot_bands, plot_dependence
from cifar_lightning.analysis.curves import generalisation_gap
from cifar_lightning.pages import Picture, Section, Table
from cifar_lightning.report.examination import Examination
from cifar_lightning.report.sections import run_sections

__all__ = ["comparison_sections"]


def comparison_sections(exams: Sequence[Examination]) -> list[Section]:
    """Return a comparison of runs, and then the sections of each of them."""
    sections = [comparison(exams)]
    for number, exam in enumerate(exams, start=1):
        for section in run_sections(exam):
            blocks = [
                replace(block, name=f"run{number}_{block.name}") if isinstance(block, Picture) else block
                for block in section.blocks
            ]
            sections.append(Section(f"{exam.name}: {section.title}", blocks))
    return sections


def comparison(exams: Sequence[Examination]) -> Section:
    """Return a table of results, and the curves of all runs in one chart."""
    rows = []
    for exam in exams:
        gap = generalisation_gap(exam.history)
        seconds = exam.run.result.get("fit", {}).get("seconds")
        rows.append(
            [
                exam.name,
                exam.split,
                f"{100 * exam.accuracy:.2f}",
                f"{exam.calibration.before.error:.4f}",
                f"{exam.parameters:,}",
                f"{sum(cost.flops for cost in exam.costs.values()) / 1e6:,.1f}",
                "" if seconds is None else f"{seconds:,.0f}",
                f"{100 * gap[-1]:.1f}" if gap else "",
            ]
        )
    header = ["run", "split", "accuracy, %", "calibration error", "weights", "MFLOP per image", "fit, s", "gap, points"]
    caption = "Without test-time augmentation; gap: training minus validation accuracy at the end"
    pictures = []
    if curves := {exam.name: [exam.history["val/acc"]] for exam in exams if "val/acc" in exam.history}:
        title = "Validation accuracy over the epochs"
        figure = plot_bands(curves, "accuracy, %", title)
        pictures.append(Picture("comparison_curves", figure, f"{title} of {', '.join(curves)}."))
    probes = {
        exam.name: {i / max(len(exam.probes) - 1, 1): [value] for i, value in enumerate(exam.probes.values())}
        for exam in exams
    }
    depth = "depth, from the pixels (0) to the last hidden layer (1)"
    title = "Accuracy of a linear classifier on each layer"
    figure = plot_dependence(probes, depth, "accuracy, %", title)
    pictures.append(Picture("comparison_probes", figure, f"{title}, over the depth of each network."))
    return Section("Comparison", [Table(header, rows, caption), *pictures])
