"""First-layer weights as colour images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from cifar_lightning.analysis.style import new_figure

__all__ = ["plot_filters", "strongest_filters"]


def strongest_filters(weights: Tensor, count: int) -> Tensor:
    """Return the filters of largest norm in falling order.

    Args:
        weights: float (N, 3, H, W).
        count: largest number of filters to return.

    Returns:
        float (min(count, N), 3, H, W).
    """
    norms = weights.flatten(1).norm(dim=1)
    return weights[norms.argsort(descending=True)[:count]]


def plot_filters(kinds: Mapping[str, Tensor], title: str, count: int = 64) -> Figure:
    """Draw the strongest filters of each kind, each scaled on its own so that grey is zero.

    Args:
        kinds: by name, float (N, 3, H, W): kernels of a convolution, or input weights of hidden units.
        title: of which run.
        count: largest number of filters to draw of each kind.
    """
    grids = {name: filter_grid(strongest_filters(weights, count)) for name, weights in kinds.items()}
    heights = [8 * grid.shape[0] / grid.shape[1] for grid in grids.values()]
    figure = new_figure(8, sum(heights) + 0.4 * len(grids) + 0.4, title)
    all_axes = figure.subplots(len(grids), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (name, grid), weights in zip(all_axes, grids.items(), kinds.values(), strict=True):
        size = f"{weights.shape[-2]}×{weights.shape[-1]} pixels"
        axes.set_title(f"{name}: {min(count, len(weights))} strongest of {len(weights)}, {size}", fontsize=9)
        axes.imshow(grid.numpy(), interpolation="nearest")
        axes.set_axis_off()
    return figure


def filter_grid(filters: Tensor) -> Tensor:
    """Return filters (N, 3, H, W) side by side as one image (height, width, 3) in [0, 1]."""
    filters = filters.detach().float().cpu()
    peak = filters.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny).view(-1, 1, 1, 1)
    columns = min(16 if filters.shape[-1] < 16 else 8, len(filters))
    # Kernels of 3x3 pixels would be specks: each pixel becomes a square of several.
    zoom = max(1, 32 // filters.shape[-1])
    shown = (filters / peak / 2 + 0.5).repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    return make_grid(shown, nrow=columns, padding=3, pad_value=1.0).permute(1, 2, 0)
