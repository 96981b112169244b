"""Findings in words, tables and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from cifar_lightning.pages import Picture, Section
from cifar_lightning.report.findings import Findings
from cifar_lightning.report.run import LoadedRun
from cifar_lightning.report.sections import network, results

__all__ = ["run_sections"]


def run_sections(run: LoadedRun, found: Findings, images: int, number: int = 0) -> list[Section]:
    """Everything about one run, in the order in which a person asks.

    Args:
        run: the run.
        found: what was found out about it.
        images: how many a gallery shows.
        number: of the run among several on the page, from 1; 0 where it is alone.
    """
    makers: list[Callable[[LoadedRun, Findings], Section | None]] = [
        results.headline,
        results.learning,
        partial(results.confusions, images=images),
        results.classes,
        partial(results.galleries, images=images),
        results.trust,
        network.filters,
        network.depth,
        network.attention,
        network.separation,
        network.cost,
        results.stability,
        results.setting,
    ]
    sections = [section for make in makers if (section := make(run, found)) is not None]
    if not number:
        return sections
    return [
        Section(
            f"{run.name}: {section.title}",
            [
                replace(part, name=f"run{number}_{part.name}") if isinstance(part, Picture) else part
                for part in section.blocks
            ],
        )
        for section in sections
    ]
