"""The sections of a report on several runs: their comparison, and then each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cifar_lightning.analysis.charts import plot_dependence
from cifar_lightning.comparison.compare import sections_of
from cifar_lightning.comparison.groups import Comparison
from cifar_lightning.comparison.records import read_runs
from cifar_lightning.pages import Picture, Section, Table
from cifar_lightning.report.examination import Examination
from cifar_lightning.report.sections import run_sections

__all__ = ["comparison_sections"]


def comparison_sections(exams: Sequence[Examination]) -> list[Section]:
    """Return the comparison of runs, as `compare` makes it, and then the sections of each of them."""
    found = read_runs([exam.run.folder for exam in exams])
    sections = sections_of(Comparison.of(found)) if any(run.finished for run in found) else []
    sections.append(calibration_and_probes(exams))
    for number, exam in enumerate(exams, start=1):
        for section in run_sections(exam):
            blocks = [
                replace(block, name=f"run{number}_{block.name}") if isinstance(block, Picture) else block
                for block in section.blocks
            ]
            sections.append(Section(f"{exam.name}: {section.title}", blocks))
    return sections


def calibration_and_probes(exams: Sequence[Examination]) -> Section:
    """Return what a comparison of results alone does not have: calibration, and accuracy over the depth."""
    rows = [
        [exam.name, exam.split, f"{100 * exam.accuracy:.2f}", f"{exam.calibration.before.error:.4f}"] for exam in exams
    ]
    table = Table(["run", "split", "accuracy, %", "calibration error"], rows, "Without test-time augmentation")
    probes = {
        exam.name: {i / max(len(exam.probes) - 1, 1): [value] for i, value in enumerate(exam.probes.values())}
        for exam in exams
    }
    title = "Accuracy of a linear classifier on each layer"
    figure = plot_dependence(probes, "depth, from the pixels (0) to the last hidden layer (1)", "accuracy, %", title)
    picture = Picture("comparison_probes", figure, f"{title}, over the depth of each network.")
    return Section("Calibration and linear probes", [table, picture])
