"""The sections of a report.

To add one, write a function that takes an `Examination` and add it to `SECTIONS`. It returns a `Section`, or a sentence
that names the section and the reason why this run has none: the report ends with these sentences. None leaves it out
without a word.
"""

from __future__ import annotations

from collections.abc import Callable

from cifar_lightning.pages import Section, Text
from cifar_lightning.report import network, results, robustness
from cifar_lightning.report.examination import Examination

__all__ = ["SECTIONS", "run_sections"]

SECTIONS: list[Callable[[Examination], Section | str | None]] = [
    results.result,
    results.learning_curves,
    results.training_steps,
    results.confusions,
    results.class_table,
    results.galleries,
    results.calibration,
    robustness.corruptions,
    network.filters,
    network.feature_maps,
    network.linear_probes,
    network.saliency,
    network.feature_embedding,
    network.cost,
    network.more_figures,
    results.setting,
]
"""The sections in the order of the report."""


def run_sections(exam: Examination) -> list[Section]:
    """Return all sections about a run, and last one that names what is left out."""
    made = [make(exam) for make in SECTIONS]
    sections = [section for section in made if isinstance(section, Section)]
    missing = [Text(reason) for reason in made if isinstance(reason, str)]
    return [*sections, Section("Left out", missing)] if missing else sections
