"""The confusion matrix: scores of each class, and a figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from cifar_lightning.analysis.style import new_figure

__all__ = ["class_scores", "plot_confusion", "row_normalised"]


def row_normalised(matrix: Tensor) -> Tensor:
    """Return counts (C, C) as shares of each true class, float64; a class without images has a row of zeros."""
    counts = matrix.double()
    return counts / counts.sum(1, keepdim=True).clamp(min=1)


def class_scores(matrix: Tensor) -> list[tuple[float, float, float, int]]:
    """Return precision, recall, F1 and number of images of each class; a score without a denominator is 0.

    Args:
        matrix: int64 (C, C), true classes in rows and predicted classes in columns.
    """
    hits, predicted, true = matrix.diagonal().double(), matrix.sum(0), matrix.sum(1)
    precision, recall = hits / predicted.clamp(min=1), hits / true.clamp(min=1)
    f1 = 2 * hits / (predicted + true).clamp(min=1)
    return list(zip(*(scores.tolist() for scores in (precision, recall, f1, true)), strict=True))


def plot_confusion(matrix: Tensor, classes: Sequence[str], title: str) -> Figure:
    """Draw counts as numbers, and their share of the true class as colour.

    Args:
        matrix: int64 (C, C), true classes in rows and predicted classes in columns.
        classes: the C names.
        title: what the counts are of.
    """
    shares = row_normalised(matrix.cpu()).numpy()
    figure = new_figure(7.6, 6.4, title)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, classes)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    for row, counts in enumerate(matrix.tolist()):
        for column, count in enumerate(counts):
            if count:  # zeros would only hide the pattern
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=9, color=colour)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure
