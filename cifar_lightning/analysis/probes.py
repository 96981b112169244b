"""Linear probes: how well a linear classifier does on the features of each layer (Alain and Bengio 2016)."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cifar_lightning.analysis.style import BLUE, GREY, new_figure

__all__ = ["plot_probes", "probe_accuracy"]


def probe_accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], ridge: float = 0.01) -> float:
    """Return the accuracy of a linear classifier: ridge regression onto the classes, of standardised features.

    Args:
        train: features float (N, F) and labels int64 (N,).
        test: features float (M, F) and labels int64 (M,).
        ridge: penalty on the squared weights, per training image.

    Returns:
        The share of the test images that are classified correctly.
    """
    (x, y), (x_test, y_test) = (
        (features.detach().cpu().double().numpy(), labels.cpu().numpy()) for features, labels in (train, test)
    )
    if (y == y[0]).all():
        return float((y_test == y[0]).mean())
    probe = make_pipeline(StandardScaler(), RidgeClassifier(alpha=ridge * len(y)))
    return float(probe.fit(x, y).score(x_test, y_test))


def plot_probes(accuracies: Mapping[str, float], network: float, title: str) -> Figure:
    """Draw the accuracy of the probes from the pixels to the last layer, and that of the network.

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
