"""Calibration: reliability diagrams and temperature scaling."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from scipy.optimize import brentq
from torch import Tensor

from cifar_lightning.analysis.style import BLUE, GREY, ORANGE, new_figure
from cifar_lightning.metrics import N_BINS, Reliability, bin_sums

__all__ = ["Reliability", "fit_temperature", "plot_reliability", "reliability"]

TEMPERATURES = (0.05, 20.0)
"""Smallest and largest temperature of the search."""


def reliability(probabilities: Tensor, labels: Tensor, bins: int = N_BINS) -> Reliability:
    """Return the predictions in bins of equal width by confidence, as Guo et al. 2017 (arXiv 1706.04599).

    Args:
        probabilities: float (N, C), rows that sum to 1.
        labels: int64 (N,).
        bins: of equal width in [0, 1]; a probability on a border belongs to the bin above it, and 1 to the last.
    """
    return Reliability.of(bin_sums(probabilities, labels, bins))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature, to divide logits by, that gives the lowest cross-entropy (Guo et al. 2017).

    The cross-entropy is convex in the inverse of the temperature, so its slope has one root.

    Args:
        logits: float (N, C), of images that neither training nor the reported numbers saw.
        labels: int64 (N,).

    Returns:
        A temperature in [0.05, 20]; above 1 for an overconfident network.
    """
    logits = logits.double()
    target = logits.gather(1, labels[:, None])[:, 0].mean()

    def slope(inverse: float) -> float:
        return float(((logits * inverse).softmax(1) * logits).sum(1).mean() - target)

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if slope(low) >= 0:
        return TEMPERATURES[1]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    return 1 / brentq(slope, low, high)


def plot_reliability(diagrams: Mapping[str, Reliability], title: str) -> Figure:
    """Draw accuracy against confidence, and the number of predictions in each bin.

    Args:
        diagrams: one or two, by name.
        title: of which predictions.
    """
    figure = new_figure(6.4, 5.6, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="perfect")
    for (name, found), colour, marker in zip(diagrams.items(), (BLUE, ORANGE), "os", strict=False):
        filled = found.counts > 0
        label = f"{name}: calibration error {found.error:.3f}"
        upper.plot(found.confidence[filled], found.accuracy[filled], marker + "-", color=colour, label=label)
        edges = torch.linspace(0, 1, len(found.counts) + 1)
        lower.stairs(found.counts, edges, color=colour)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    upper.legend(loc="best", frameon=False)
    lower.set(xlabel="confidence (probability of the predicted class)", ylabel="predictions", yscale="symlog")
    return figure
