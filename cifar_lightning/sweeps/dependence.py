"""How a metric depends on a setting that is a number: a chart, and the range in which it hardly does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cifar_lightning.analysis.charts import plot_dependence
from cifar_lightning.analysis.statistics import summarise
from cifar_lightning.pages import Picture, Table
from cifar_lightning.sweeps.groups import Group, label
from cifar_lightning.sweeps.sections import Part, mean_of, percent, score_text, with_unit

__all__ = ["dependence", "plateau"]

POINTS = 0.02
"""What may be lost in the range that is shown, as a share of all images."""


def dependence(groups: Sequence[Group], metric: str) -> list[Part]:
    """A chart and a table for each setting that is a number: the other settings make its lines."""
    parts: list[Part] = []
    keys = list(groups[0].point)
    for key in keys:
        others = [other for other in keys if other != key]
        lines: dict[str, dict[float, Group]] = {}
        for group in groups:
            if isinstance(value := group.point[key], int | float) and not isinstance(value, bool):
                lines.setdefault(label(group.point, others), {})[float(value)] = group
        series = {
            name: {x: list(seeds.values()) for x, group in line.items() if (seeds := group.values(metric))}
            for name, line in lines.items()
        }
        series = {name: line for name, line in series.items() if len(line) > 1}
        if series:
            title = f"{metric} against {key}"
            rows = [
                [name, f"{x:g}", str(len(line[x])), score_text(summarise(line[x]), metric)]
                for name, line in series.items()
                for x in sorted(line)
            ]
            numbers = Table(["line", key, "n", with_unit(metric)], rows, title)
            figure = plot_dependence(series, key, with_unit(metric), title, 100 if percent(metric) else 1)
            parts.append(Picture(f"dependence_{key.replace('.', '_')}", figure, f"{title}.", numbers))
            if metric.endswith("acc"):
                parts.append(ranges({name: lines[name] for name in series}, key, metric))
    return parts


def ranges(lines: Mapping[str, Mapping[float, Group]], key: str, metric: str) -> Table:
    """The best value of a setting for each line, and the values around it that are nearly as good with every seed."""
    rows = []
    for name, line in lines.items():
        means = {
            x: -math.inf if any(run.diverged for run in group.runs) else mean_of(group, metric)
            for x, group in line.items()
        }
        best, low, high = plateau(means, POINTS)
        there = summarise(list(line[best].values(metric).values()))
        rows.append([name, f"{best:g}", score_text(there, metric), f"{low:g} to {high:g}"])
    header = ["line", f"best {key}", f"{metric} there, %", f"within {100 * POINTS:g} points"]
    caption = f"The values of {key} around the best one that lose at most {100 * POINTS:g} points, no run diverging"
    return Table(header, rows, caption)


def plateau(means: Mapping[float, float], loss: float) -> tuple[float, float, float]:
    """The value of the highest mean, and the lowest and highest value that one reaches from it at a loss this small.

    Args:
        means: of what should be high, by value of the setting.
        loss: the most that a mean may lie below the highest one.
    """
    xs = sorted(means)
    best = max(xs, key=lambda x: means[x])
    low = high = xs.index(best)
    while low > 0 and means[best] - means[xs[low - 1]] <= loss:
        low -= 1
    while high + 1 < len(xs) and means[best] - means[xs[high + 1]] <= loss:
        high += 1
    return best, xs[low], xs[high]
