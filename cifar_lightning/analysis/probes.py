"""Linear probes: how well a linear classifier does on the features of each layer (Alain and Bengio 2016)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cifar_lightning.analysis.style import BLUE, GREY, new_figure

__all__ = ["plot_probes", "probe_accuracy"]


def probe_accuracy(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int = 10, ridge: float = 0.01
) -> float:
    """Accuracy of a ridge regression onto one-hot labels, the linear classifier that has a closed form.

    Features are scaled to mean 0 and deviation 1 over the training images; the intercept is not penalised.

    Args:
        train: features float (N, F) and labels int64 (N,).
        test: features float (M, F) and labels int64 (M,).
        classes: number of classes.
        ridge: penalty on the squared weights, for each training image.

    Returns:
        The share of the test images that it gets right.
    """
    (x, y), (x_test, y_test) = train, test
    mean, std = x.double().mean(0), x.double().std(0, correction=0)
    scale = torch.where(std > 1e-8, 1 / std.clamp(min=1e-8), 0.0)  # what never varies says nothing
    x, x_test = ((part.double() - mean) * scale for part in (x, x_test))
    targets = torch.nn.functional.one_hot(y, classes).double()
    targets -= targets.mean(0)
    gram = x.T @ x / len(x)
    gram.diagonal().add_(ridge)
    weights = torch.linalg.solve(gram, x.T @ targets / len(x))
    shares = torch.nn.functional.one_hot(y, classes).double().mean(0)
    return float(((x_test @ weights + shares).argmax(1) == y_test).double().mean())


def plot_probes(accuracies: Mapping[str, float], network: float, title: str) -> Figure:
    """Draws the accuracy of the probes from the pixels to the last layer, and that of the network itself.

    Args:
        accuracies: of each layer, in the order of depth, in [0, 1].
        network: accuracy of the network on the same images.
        title: of which run and images.
    """
    figure = new_figure(7.2, 4.4, title)
    axes = figure.add_subplot()
    values = [100 * value for value in accuracies.values()]
    axes.plot(range(len(values)), values, "o-", color=BLUE)
    for i, value in enumerate(values):
        axes.annotate(f"{value:.1f}", (i, value), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=9)
    axes.axhline(100 * network, color=GREY, linewidth=1, linestyle="--")
    axes.annotate(f"the network: {100 * network:.1f}", (0, 100 * network), xytext=(0, 4), textcoords="offset points")
    axes.set_xticks(range(len(values)), list(accuracies), rotation=30, ha="right", rotation_mode="anchor")
    axes.set(ylabel="accuracy of a linear classifier, %", ylim=(0, 105))
    axes.grid(axis="y", alpha=0.3)
    return figure
