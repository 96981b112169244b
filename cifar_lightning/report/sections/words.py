"""How numbers and titles are written in every section."""

from __future__ import annotations

import math

from cifar_lightning.report.findings import Findings
from cifar_lightning.report.run import LoadedRun

__all__ = ["digits", "of", "percent"]


def percent(share: float, places: int = 2) -> str:
    """A share as percent."""
    return f"{100 * share:.{places}f}"


def of(run: LoadedRun, found: Findings) -> str:
    """Run, number of images and split, and whether they are synthetic: what every title says."""
    return (
        f"{run.name}, {len(found.labels):,} {found.split} {'SYNTHETIC images' if run.data.is_synthetic else 'images'}"
    )


def digits(value: float) -> str:
    """Four significant digits, or nothing."""
    return "" if math.isnan(value) else f"{value:.4g}"
