"""Accuracy under corruptions, as a figure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from cifar_lightning.analysis.style import new_figure

__all__ = ["plot_corruptions", "words"]


def words(name: str) -> str:
    """Return the name of a corruption as it is read: "JPEG compression" for jpeg_compression."""
    return name.replace("_", " ").replace("jpeg", "JPEG")


def plot_corruptions(accuracy: Mapping[str, Sequence[float]], clean: float, title: str) -> Figure:
    """Draw accuracies in percent as numbers, and as colours how much of the accuracy without corruption is left.

    Args:
        accuracy: In [0, 1], for the severities 1 to 5 of each corruption.
        clean: Accuracy on the same images without corruption.
        title: What was tested, on which images.
    """
    ordered = sorted(accuracy.items(), key=lambda item: statistics.fmean(item[1]), reverse=True)
    rows = [[*values, statistics.fmean(values)] for _, values in ordered]
    figure = new_figure(6.8, 0.32 * len(rows) + 1.6, title)
    axes = figure.add_subplot()
    image = axes.imshow(rows, cmap="Blues", vmin=0, vmax=max(clean, 1e-9), aspect="auto")
    axes.set_xticks(range(6), ["1", "2", "3", "4", "5", "mean"])
    axes.set_yticks(range(len(rows)), [words(name) for name, _ in ordered])
    axes.set_xlabel(f"severity; without corruption {100 * clean:.1f} %")
    axes.axvline(4.5, color="white", linewidth=3)
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            colour = "white" if value > 0.6 * clean else "black"
            axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", fontsize=9, color=colour)
    figure.colorbar(image, ax=axes, label="accuracy")
    return figure
