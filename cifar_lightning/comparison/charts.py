"""Charts of a comparison, with their numbers: costs, curves over the epochs, and the accuracy of each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cifar_lightning import CLASSES
from cifar_lightning.analysis.charts import plot_bands, plot_classes, plot_cost
from cifar_lightning.analysis.mistakes import confused_pairs
from cifar_lightning.analysis.statistics import Summary, summarise
from cifar_lightning.comparison.groups import Comparison, Group, as_key, mean_and_std, score_text
from cifar_lightning.data.split import evenly_spaced
from cifar_lightning.metrics import direction
from cifar_lightning.pages import Picture, Table

__all__ = ["accuracy_by_class", "costs", "curves", "leaders"]

COSTS = {
    "params": "weights",
    "flops_per_image": "FLOP of a forward pass per image",
    "depth": "layers with trained weights",
    "training_flops": "FLOP of the training",
    "seconds": "seconds of training",
}
MAX_LINES = 16
"""Groups in a chart of curves."""
EPOCHS_SHOWN = 8
"""Columns in a table of curves."""
CONFUSIONS_SHOWN = 5
"""Pairs of classes for each group."""


def leaders(groups: Sequence[Group]) -> tuple[list[Group], str]:
    """Return the groups for a chart, and words for its title that name them if they are not all.

    Of too many, these are the best of each kind; groups are of one kind if they differ in numbers alone.
    """
    if len(groups) <= MAX_LINES:
        return list(groups), ""
    kinds: dict[str, Group] = {}
    for group in groups:
        settings = {key: value for key, value in group.point.items() if not isinstance(value, int | float)}
        kinds.setdefault(as_key(settings), group)
    if 1 < len(kinds) <= MAX_LINES:
        return list(kinds.values()), f", the best of each kind of {len(groups)} groups"
    return list(groups[:MAX_LINES]), f", the best {MAX_LINES} of {len(groups)} groups"


def costs(comparison: Comparison) -> list[Picture]:
    """Return charts of the metric against parameters, operations, layers and time."""
    pictures = []
    metric, unit = comparison.metric, comparison.metric_with_unit
    for name, words in COSTS.items():
        points = {}
        for group in comparison.groups:
            cost, score = group.summary(name), group.summary(metric)
            if cost and score and cost.mean > 0:
                points[group.label] = (cost.mean, score)
        if len({cost for cost, _ in points.values()}) > 1:
            title = f"{metric} against {words}, {len(points)} groups"
            rows = [[label, f"{cost:,.0f}", score_text(score, metric)] for label, (cost, score) in points.items()]
            figure = plot_cost(points, words, unit, title, comparison.factor, direction(metric))
            table = Table(["group", words, unit], rows, title)
            pictures.append(Picture(f"cost_{name}", figure, f"{title}, one point each.", table))
    return pictures


def curves(comparison: Comparison) -> list[Picture]:
    """Return charts of validation accuracy and generalisation gap over the epochs."""
    shown, which = leaders([group for group in comparison.groups if group.curves("val/acc")])
    if not shown:
        return []
    val = {group.label: group.curves("val/acc") for group in shown}
    title = f"Validation accuracy over the epochs{which}"
    epochs = [
        int(i) + 1 for i in evenly_spaced(max(len(curve) for seeds in val.values() for curve in seeds), EPOCHS_SHOWN)
    ]
    rows = [[label, *(mean_and_std(at_epoch(seeds, epoch)) for epoch in epochs)] for label, seeds in val.items()]
    table = Table(["group", *(f"epoch {epoch}, %" for epoch in epochs)], rows, title)
    band = "; the band is the range of the seeds."
    figure = plot_bands(val, "validation accuracy, %", title)
    pictures = [Picture("curves_val", figure, title + band, table)]
    gaps = {group.label: found for group in shown if (found := gap_curves(group))}
    title = f"Training minus validation accuracy{which}"
    figure = plot_bands(gaps, "generalisation gap, points", title)
    return [*pictures, Picture("curves_gap", figure, title + band)]


def gap_curves(group: Group) -> list[list[float]]:
    """Return training minus validation accuracy over the epochs, for each finished run that has both."""
    both = [run.history for run in group.finished if run.history.get("val/acc") and run.history.get("train/acc")]
    return [[a - b for a, b in zip(curve["train/acc"], curve["val/acc"], strict=False)] for curve in both]


def at_epoch(seeds: Sequence[Sequence[float]], epoch: int) -> Summary | None:
    """Return the statistics of the curves that have an epoch; epochs count from 1."""
    values = [seed[epoch - 1] for seed in seeds if len(seed) >= epoch]
    return summarise(values) if values else None


def accuracy_by_class(comparison: Comparison) -> list[Picture | Table]:
    """Return the test accuracy of each class, and the most frequent confusions."""
    names = [f"test/class_acc/{name}" for name in CLASSES]
    shown, which = leaders([group for group in comparison.groups if all(group.values(name) for name in names)])
    if not shown:
        return []
    summaries = {group.label: [group.summary(name) for name in names] for group in shown}
    title = f"Test accuracy of each class{which}"
    rows = [[label, *(mean_and_std(summary, places=1) for summary in row)] for label, row in summaries.items()]
    means = {label: [summary.mean for summary in row if summary] for label, row in summaries.items()}
    figure = plot_classes(means, CLASSES, title)
    table = Table(["group", *(f"{name}, %" for name in CLASSES)], rows, title)
    return [Picture("classes", figure, f"{title}, mean over seeds.", table), confusions(shown)]


def confusions(groups: Sequence[Group]) -> Table:
    """Return the pairs of classes that each group confuses most often, over the test images of all its seeds."""
    rows = []
    for group in groups:
        matrices = torch.tensor([run.result["test"]["confusion"] for run in group.finished])
        cells = [
            f"{CLASSES[pair.label]} as {CLASSES[pair.prediction]}: {100 * pair.share:.1f}"
            for pair in confused_pairs(matrices.sum(0), CONFUSIONS_SHOWN)
        ]
        rows.append([group.label, *cells, *[""] * (CONFUSIONS_SHOWN - len(cells))])
    header = ["group", *(f"{n}." for n in range(1, CONFUSIONS_SHOWN + 1))]
    return Table(
        header, rows, "Most frequent confusions: true class as predicted class, % of the images of the true one"
    )
