"""Whether the confidence of a network can be trusted: reliability diagrams and temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cifar_lightning.analysis.style import BLUE, GREY, ORANGE, new_figure

__all__ = ["Reliability", "fit_temperature", "plot_reliability", "reliability"]

TEMPERATURES = (0.05, 20.0)
"""The scaling is sought between these; a network beyond them is wrong in other ways."""


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of equal width by the probability of the predicted class.

    Attributes:
        counts: int64 (bins,), predictions in each.
        confidence: float64 (bins,), mean probability of those; 0 where there are none.
        accuracy: float64 (bins,), share of those that are right; 0 where there are none.
    """

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def error(self) -> float:
        """Expected calibration error: the gap between confidence and accuracy, averaged over predictions."""
        gaps = (self.confidence - self.accuracy).abs()
        return float((gaps * self.counts).sum() / self.counts.sum().clamp(min=1))


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Reliability:
    """Bins predictions as Guo et al. 2017 (arXiv 1706.04599) do.

    Args:
        probabilities: float (N, C), rows that sum to 1.
        labels: int64 (N,).
        bins: of equal width in [0, 1]; a probability on a border belongs to the bin above it, and 1 to the last.
    """
    confidences, predictions = probabilities.double().max(1)
    where = (confidences * bins).long().clamp(max=bins - 1)
    right = (predictions == labels).double()
    counts = torch.bincount(where, minlength=bins)
    least = counts.clamp(min=1)
    return Reliability(
        counts,
        torch.bincount(where, confidences, minlength=bins) / least,
        torch.bincount(where, right, minlength=bins) / least,
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that gives the lowest cross-entropy: logits are to be divided by it (Guo et al. 2017).

    The cross-entropy is convex in the inverse of the temperature, so its slope has one root, which bisection finds.

    Args:
        logits: float (N, C), of images that neither training nor the reported numbers saw.
        labels: int64 (N,).

    Returns:
        A temperature in [0.05, 20]; above 1 for a network that is too sure of itself.
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
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def plot_reliability(diagrams: dict[str, Reliability], title: str) -> Figure:
    """Draws accuracy against confidence, and how many predictions lie where.

    Args:
        diagrams: what to compare, by name, two at most.
        title: what the predictions are of.
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
