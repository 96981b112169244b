"""Figures of saliency and Grad-CAM, and a map of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cifar_lightning.analysis.style import MARKERS, PALETTE, image_array, new_figure

__all__ = ["plot_embedding", "plot_explanations"]


def plot_explanations(images: Tensor, names: Sequence[str], saliency: Tensor, cam: Tensor | None, title: str) -> Figure:
    """Draw images in columns, each above its saliency and its Grad-CAM.

    Args:
        images: uint8 (B, 3, H, W).
        names: titles of the columns.
        saliency: float (B, H, W), at least 0; each is scaled to its maximum.
        cam: float (B, H, W) in [0, 1], or None for a network without feature maps.
        title: of the figure.
    """
    rows = 2 + (cam is not None)
    figure = new_figure(1.35 * len(images) + 1.0, 1.5 * rows + 0.9, title)
    grid = figure.subplots(rows, len(images), squeeze=False)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_frame_on(False)
    for column, image in enumerate(image_array(images)):
        grid[0, column].imshow(image, interpolation="nearest")
        grid[0, column].set_title(names[column], fontsize=9, pad=3)
        grid[1, column].imshow(saliency[column].numpy(), cmap="gray", vmin=0, interpolation="nearest")
        if cam is not None:
            grid[2, column].imshow(image, interpolation="nearest", alpha=0.55)
            grid[2, column].imshow(cam[column].numpy(), cmap="inferno", alpha=0.55, vmin=0, vmax=1)
    for axes, words in zip(grid[:, 0], ("image", "gradient\nat the pixels", "Grad-CAM"), strict=False):
        axes.set_ylabel(words, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def plot_embedding(points: Tensor, labels: Tensor, classes: Sequence[str], title: str) -> Figure:
    """Draw points in the plane with a colour and a marker per class, and the name of each class at its median.

    Args:
        points: float (N, 2).
        labels: int64 (N,).
        classes: at most ten names.
        title: of the figure.
    """
    figure = new_figure(7.6, 7.0, title)
    axes = figure.add_subplot()
    for index, name in enumerate(classes):
        own = points[labels == index]
        if len(own):
            x, y = own.T.numpy()
            axes.scatter(x, y, s=9, color=PALETTE[index], marker=MARKERS[index], linewidths=0, alpha=0.7, label=name)
            across, up = torch.median(own, 0).values.tolist()
            box = {"facecolor": "white", "alpha": 0.8, "edgecolor": PALETTE[index], "pad": 1.5}
            axes.annotate(name, (across, up), ha="center", va="center", fontsize=10, bbox=box)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set(xlabel="distances between near points are meant, directions are not", aspect="equal", adjustable="datalim")
    return figure
