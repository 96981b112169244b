"""Charts of a metric against a setting that is a number, and the range of values in which it changes little."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cifar_lightning.analysis.charts import plot_dependence
from cifar_lightning.analysis.statistics import summarise
from cifar_lightning.comparison.groups import Comparison, Group, names_of, score_text
from cifar_lightning.pages import Picture, Table

__all__ = ["dependence", "plateau"]

TOLERANCE = 0.02
"""The accuracy that values in the range lose at most, as a share of all images."""


def dependence(comparison: Comparison) -> list[Picture | Table]:
    """Return a chart and a table for each setting that is a number, with a line for each combination of the others."""
    blocks: list[Picture | Table] = []
    metric, unit = comparison.metric, comparison.metric_with_unit
    for key in comparison.groups[0].point:
        if not (lines := lines_of(comparison, key)):
            continue
        title = f"{metric} against {key}"
        series = {
            name: {x: list(values.values()) for x, group in line.items() if (values := group.values(metric))}
            for name, line in lines.items()
        }
        rows = [
            [name, f"{x:g}", str(len(line[x])), score_text(summarise(line[x]), metric)]
            for name, line in series.items()
            for x in sorted(line)
        ]
        figure = plot_dependence(series, key, unit, title, comparison.factor)
        table = Table(["line", key, "n", unit], rows, title)
        blocks.append(Picture(f"dependence_{key.replace('.', '_')}", figure, f"{title}.", table))
        if metric.endswith("acc"):
            blocks.append(ranges(lines, key, metric))
    return blocks


def lines_of(comparison: Comparison, key: str) -> dict[str, dict[float, Group]]:
    """Return the groups by the value of a setting, for each combination of the others in which two have the metric."""
    lines: dict[str, dict[float, Group]] = {}
    for group in comparison.groups:
        value = group.point[key]
        if isinstance(value, int | float) and not isinstance(value, bool):
            others = names_of({other: group.point[other] for other in group.point if other != key})
            lines.setdefault(", ".join(others) or "all runs", {})[float(value)] = group
    return {
        name: line
        for name, line in lines.items()
        if sum(bool(group.values(comparison.metric)) for group in line.values()) > 1
    }


def ranges(lines: Mapping[str, Mapping[float, Group]], key: str, metric: str) -> Table:
    """Return the best value of a setting for each line, and the values around it that are nearly as good."""
    rows = []
    for name, line in lines.items():
        summaries = {x: group.summary(metric) for x, group in line.items()}
        means = {
            x: -math.inf if summary is None or any(run.diverged for run in line[x].runs) else summary.mean
            for x, summary in summaries.items()
        }
        best, low, high = plateau(means, TOLERANCE)
        rows.append([name, f"{best:g}", score_text(summaries[best], metric), f"{low:g} to {high:g}"])
    points = f"{100 * TOLERANCE:g} points"
    header = ["line", f"best {key}", f"{metric} there, %", f"within {points}"]
    caption = f"The values of {key} around the best one that lose at most {points} and at which no run diverged"
    return Table(header, rows, caption)


def plateau(means: Mapping[float, float], tolerance: float) -> tuple[float, float, float]:
    """Return the value with the highest mean, and the lowest and the highest value of the range around it.

    Args:
        means: by value of the setting; higher is better.
        tolerance: the most that a mean in the range may lie below the highest one.
    """
    xs = sorted(means)
    best = max(xs, key=lambda x: means[x])
    low = high = xs.index(best)
    while low > 0 and means[best] - means[xs[low - 1]] <= tolerance:
        low -= 1
    while high + 1 < len(xs) and means[best] - means[xs[high + 1]] <= tolerance:
        high += 1
    return best, xs[low], xs[high]
