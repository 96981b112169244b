"""Curves over epochs and steps, the generalisation gap, and spikes of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_lightning.analysis.style import BLUE, GREY, ORANGE, new_figure

__all__ = ["generalisation_gap", "loss_spikes", "plot_curves", "plot_steps"]

Curve = Sequence[float]


def generalisation_gap(history: Mapping[str, Curve]) -> list[float]:
    """Return training accuracy minus validation accuracy of each epoch that has both.

    The training accuracy is that of the augmented images, while the weights change within the epoch.

    Args:
        history: curves by name, including "train/acc" and "val/acc"; NaN for an epoch without a value.
    """
    pairs = zip(history.get("train/acc", ()), history.get("val/acc", ()), strict=False)
    return [train - val for train, val in pairs if not math.isnan(train - val)]


def loss_spikes(losses: Curve, window: int = 10, factor: float = 1.5) -> list[int]:
    """Return where a loss is above `factor` times the median of the `window` values before it, or not finite.

    Args:
        losses: one value per step or epoch.
        window: values to compare with; the first ones have too few before them.
        factor: of the median, above which a value is a spike.
    """
    found = []
    for i, loss in enumerate(losses):
        before = [value for value in losses[max(0, i - window) : i] if math.isfinite(value)]
        if not math.isfinite(loss) or (len(before) == window and loss > factor * float(np.median(before))):
            found.append(i)
    return found


def plot_curves(history: Mapping[str, Curve], title: str) -> Figure:
    """Draw loss and accuracy of training and validation over the epochs, with the gap between the accuracies.

    Args:
        history: curves by name, one value per epoch.
        title: of which run.
    """
    figure = new_figure(9.6, 4.0, title)
    left, right = figure.subplots(1, 2)
    for split, colour, marker, words in (("train", BLUE, "o", "training"), ("val", ORANGE, "s", "validation")):
        for axes, metric, factor in ((left, "loss", 1), (right, "acc", 100)):
            values = np.asarray(history.get(f"{split}/{metric}", ()), dtype=float) * factor
            if np.isfinite(values).any():
                axes.plot(np.arange(1, len(values) + 1), values, marker + "-", color=colour, label=words, markersize=4)
    left.set(xlabel="epoch", ylabel="cross-entropy, nats")
    right.set(xlabel="epoch", ylabel="accuracy, %")
    if gap := generalisation_gap(history):
        right.plot([], [], " ", label=f"gap at the end: {100 * gap[-1]:.1f} points")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    return figure


def plot_steps(curves: Mapping[str, tuple[Curve, Curve]], title: str) -> Figure:
    """Draw curves over optimizer steps below each other, each with its own scale.

    Args:
        curves: (steps, values) by the name of the values with their unit.
        title: of which run.
    """
    figure = new_figure(8.0, 1.9 * len(curves) + 0.6, title)
    rows = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, (steps, values)) in zip(rows, curves.items(), strict=True):
        axes.plot(steps, values, color=BLUE, linewidth=1)
        axes.set_ylabel(name, fontsize=9)
        axes.grid(alpha=0.3, color=GREY)
    rows[-1].set_xlabel("optimizer step")
    return figure
