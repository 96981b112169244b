"""First-layer weights as colour images."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from cifar_lightning.analysis.style import new_figure

__all__ = ["plot_filters", "strongest_filters"]


def strongest_filters(weights: Tensor, count: int) -> Tensor:
    """The `count` filters of largest norm, largest first.

    Args:
        weights: float (N, 3, H, W).
        count: how many to keep; fewer come back when there are fewer.

    Returns:
        float (min(count, N), 3, H, W).
    """
    norms = weights.flatten(1).norm(dim=1)
    return weights[norms.argsort(descending=True)[:count]]


def plot_filters(weights: Tensor, title: str, count: int = 64) -> Figure:
    """Draws the strongest filters, each scaled on its own so that grey is zero.

    Args:
        weights: float (N, 3, H, W): kernels of a convolution, or input weights of hidden units.
        title: what the weights are of.
        count: filters to draw at most.
    """
    filters = strongest_filters(weights.detach().float().cpu(), count)
    peak = filters.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny).view(-1, 1, 1, 1)
    columns = min(16 if filters.shape[-1] < 16 else 8, len(filters))
    # Kernels of 3x3 pixels would be specks: each pixel becomes a square of several.
    zoom = max(1, 32 // filters.shape[-1])
    shown = (filters / peak / 2 + 0.5).repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    grid = make_grid(shown, nrow=columns, padding=3, pad_value=1.0)
    height, width = grid.shape[1:]
    figure = new_figure(8, 8 * height / width + 0.6, f"{title}: {len(filters)} strongest of {len(weights)}")
    axes = figure.add_subplot()
    axes.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_axis_off()
    return figure
