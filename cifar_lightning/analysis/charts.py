"""Charts of many runs: what accuracy costs, how it was reached, and how it depends on a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from cifar_lightning.analysis.statistics import Summary, summarise
from cifar_lightning.analysis.style import GREY, MARKERS, PALETTE, new_figure

__all__ = ["pareto_front", "plot_bands", "plot_classes", "plot_cost", "plot_dependence"]

LIGHT = "#B0B0B0"
NAMED = 20
"""Groups in a chart of costs that are named; of more groups, only those on the front are."""
STYLES = [(colour, marker, line) for line in ("-", "--", ":") for colour, marker in zip(PALETTE, MARKERS, strict=True)]


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Return the indices of the points that no other point beats in both, by rising cost.

    Args:
        costs: lower is better.
        values: higher is better, one per cost.
    """
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i])):
        if not front or values[i] > values[front[-1]]:
            front.append(i)
    return front


def plot_cost(
    points: Mapping[str, tuple[float, Summary]],
    xlabel: str,
    ylabel: str,
    title: str,
    factor: float = 100,
    mode: Literal["min", "max"] = "max",
) -> Figure:
    """Draw a metric against a cost, with the front of the points that nothing beats.

    Args:
        points: cost above 0 and the metric, such as accuracies in [0, 1], by group.
        xlabel: the cost with its unit.
        ylabel: the metric with its unit.
        title: what is compared.
        factor: that the values are multiplied by.
        mode: whether low ("min") or high ("max") values are good.
    """
    figure = new_figure(8.4, 4.8, title)
    axes = figure.add_subplot()
    costs = [cost for cost, _ in points.values()]
    means = [factor * summary.mean for _, summary in points.values()]
    front = pareto_front(costs, means if mode == "max" else [-mean for mean in means])
    axes.plot([costs[i] for i in front], [means[i] for i in front], "-", color=GREY, linewidth=1, zorder=0)
    # Up to NAMED groups are all named; of more, those on the front.
    named = list(range(len(points))) if len(points) <= NAMED else front
    others = [i for i in range(len(points)) if i not in named]
    if others:
        axes.plot([costs[i] for i in others], [means[i] for i in others], ".", color=LIGHT, label="all others")
    names, summaries = list(points), [summary for _, summary in points.values()]
    for i, (colour, marker, line) in zip(named, STYLES * len(points), strict=False):
        fill = colour if line == "-" else "white"  # ten markers, and the same ten hollow
        error = factor * (summaries[i].std or 0)
        axes.errorbar(costs[i], means[i], error, color=colour, fmt=marker, mfc=fill, label=names[i], capsize=2)
    scale(axes, costs)
    axes.set(xlabel=f"{xlabel}; the line joins those that no other beats", ylabel=ylabel)
    axes.grid(alpha=0.3)
    legend(axes, len(points))
    return figure


def plot_bands(curves: Mapping[str, Sequence[Sequence[float]]], ylabel: str, title: str, factor: float = 100) -> Figure:
    """Draw the mean of curves over epochs, and the range of the seeds around it.

    Args:
        curves: one curve per seed, by group.
        ylabel: the metric with its unit.
        title: what is compared.
        factor: that the values are multiplied by.
    """
    figure = new_figure(8.4, 4.8, title)
    axes = figure.add_subplot()
    for (name, seeds), (colour, _, line) in zip(curves.items(), STYLES * len(curves), strict=False):
        length = min(len(seed) for seed in seeds)
        values = factor * np.asarray([seed[:length] for seed in seeds], dtype=float)
        epochs = np.arange(1, length + 1)
        axes.plot(epochs, values.mean(0), line, color=colour, label=name, linewidth=1.5)
        axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    legend(axes, len(curves))
    return figure


def plot_dependence(
    series: Mapping[str, Mapping[float, Sequence[float]]], xlabel: str, ylabel: str, title: str, factor: float = 100
) -> Figure:
    """Draw a metric against a setting, one line per group of the other settings.

    Args:
        series: by line and value of the setting, values of the metric of all seeds, such as accuracies in [0, 1].
        xlabel: the setting.
        ylabel: the metric with its unit.
        title: what is compared.
        factor: that the values are multiplied by.
    """
    figure = new_figure(8.4, 4.8, title)
    axes = figure.add_subplot()
    for (name, line), (colour, marker, style) in zip(series.items(), STYLES * len(series), strict=False):
        xs = sorted(line)
        summaries = [summarise(line[x]) for x in xs]
        axes.errorbar(
            xs,
            [factor * s.mean for s in summaries],
            [factor * (s.std or 0) for s in summaries],
            color=colour,
            fmt=marker + style,
            label=name,
            capsize=2,
            markersize=5,
        )
    scale(axes, [x for line in series.values() for x in line])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    legend(axes, len(series))
    return figure


def plot_classes(accuracies: Mapping[str, Sequence[float]], classes: Sequence[str], title: str) -> Figure:
    """Draw the accuracy on each class as numbers and colours, one row per group.

    Args:
        accuracies: of the classes, in [0, 1], by group.
        classes: their names.
        title: what is compared.
    """
    values = 100 * np.asarray(list(accuracies.values()))
    figure = new_figure(8.4, 1.6 + 0.4 * len(values), title)
    axes = figure.add_subplot()
    low, high = values.min(), values.max()
    image = axes.imshow(values, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(values)), list(accuracies))
    for row, numbers in enumerate(values):
        for column, number in enumerate(numbers):
            colour = "white" if number > (low + high) / 2 else "black"
            axes.text(column, row, f"{number:.0f}", ha="center", va="center", fontsize=9, color=colour)
    figure.colorbar(image, ax=axes, label="accuracy, %")
    return figure


def scale(axes: Axes, xs: Sequence[float]) -> None:
    """Make the axis logarithmic for values that span nearly an order of magnitude."""
    if min(xs) > 0 and max(xs) / min(xs) >= 8:
        axes.set_xscale("log")
        if max(xs) / min(xs) < 100:  # the labels that matplotlib makes between powers of ten would overlap
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())


def legend(axes: Axes, entries: int) -> None:
    """Draw a legend beside the chart, where it hides nothing."""
    if entries > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=8)
