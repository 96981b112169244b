"""Blurs, zooms and other filters of 32x32 images, in whole batches, as scipy, Pillow and ImageMagick compute them."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SIDE", "blur_along", "both_ways", "box_matrix", "gaussian_matrix", "plasma", "sample", "zoom_matrix"]

SIDE = 32
"""Height and width of the images, in pixels."""


def both_ways(matrix: Tensor, x: Tensor) -> Tensor:
    """Return images (..., 32, 32) with a linear map (n, 32) applied to rows and to columns."""
    matrix = matrix.to(x)
    return matrix @ x @ matrix.T


@functools.cache
def gaussian_matrix(sigma: float, truncate: float, symmetric: bool) -> Tensor:
    """Return the map (32, 32) that blurs a line of pixels as `scipy.ndimage.gaussian_filter1d`.

    Args:
        sigma: Standard deviation in pixels.
        truncate: Radius of the kernel in standard deviations.
        symmetric: Beyond the border the line is mirrored ("reflect"); else its last pixel continues ("nearest").
    """
    radius = int(truncate * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2) if radius else torch.ones(1).double()
    places = torch.arange(SIDE)[:, None] + offsets
    if symmetric:
        places = places % (2 * SIDE)
        places = torch.where(places < SIDE, places, 2 * SIDE - 1 - places)
    matrix = torch.zeros(SIDE, SIDE, dtype=torch.double)
    return matrix.scatter_add_(1, places.clamp(0, SIDE - 1), (weights / weights.sum()).expand(SIDE, -1)).float()


@functools.cache
def zoom_matrix(factor: float) -> Tensor:
    """Return the map (32, 32) that enlarges the middle of a line of pixels as `scipy.ndimage.zoom` of order 1."""
    kept = math.ceil(SIDE / factor)
    enlarged = round(kept * factor)
    first = (enlarged - SIDE) // 2
    places = torch.arange(first, first + SIDE).double() * (kept - 1) / (enlarged - 1) + (SIDE - kept) // 2
    below = places.floor().clamp(0, SIDE - 2)
    share = (places - below)[:, None]
    matrix = torch.zeros(SIDE, SIDE, dtype=torch.double)
    matrix.scatter_add_(1, below.long()[:, None], 1 - share)
    return matrix.scatter_add_(1, below.long()[:, None] + 1, share).float()


@functools.cache
def box_matrix(size: int, new: int) -> Tensor:
    """Return the map (new, size) of a line of pixels that Pillow's box filter is before it rounds."""
    scale = size / new
    matrix = torch.zeros(new, size)
    for i in range(new):
        centre, reach = (i + 0.5) * scale, 0.5 * max(scale, 1.0)
        taken = range(max(0, int(centre - reach + 0.5)), min(size, int(centre + reach + 0.5)))
        for k in taken:
            matrix[i, k] = float(-0.5 < (k - centre + 0.5) / max(scale, 1.0) <= 0.5)
    return matrix / matrix.sum(1, keepdim=True)


def blur_along(x: Tensor, radius: int, sigma: float, angle: Tensor) -> Tensor:
    """Return images blurred towards one side, as ImageMagick's motion blur; the border continues.

    Args:
        x: float (N, C, 32, 32) in [0, 1].
        radius: The kernel has 2 * radius + 1 pixels.
        sigma: Its standard deviation in pixels.
        angle: Direction for each image in degrees, (N,).

    Returns:
        float (N, C, 32, 32), of 256 levels.
    """
    steps = torch.arange(2 * radius + 1, device=x.device)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    radians = torch.deg2rad(angle.double())[:, None]
    down, right = (torch.ceil(steps * part(radians) - 0.5).long() for part in (torch.sin, torch.cos))
    line, image = torch.arange(SIDE, device=x.device), torch.arange(len(x), device=x.device)[:, None, None]
    blurred = torch.zeros_like(x).permute(0, 2, 3, 1)
    for i, weight in enumerate(kernel.tolist()):
        rows = (line + down[:, i, None]).clamp(0, SIDE - 1)[:, :, None]
        columns = (line + right[:, i, None]).clamp(0, SIDE - 1)[:, None, :]
        blurred = blurred + weight * x.permute(0, 2, 3, 1)[image, rows, columns]
    return (blurred.permute(0, 3, 1, 2) * 255).round() / 255


def sample(x: Tensor, columns: Tensor, rows: Tensor, about_centres: bool) -> Tensor:
    """Return images (N, C, 32, 32) at other places (N, 32, 32) in pixels, interpolated linearly.

    Args:
        x: The images.
        columns: Places from left to right.
        rows: Places from top to bottom.
        about_centres: Beyond the border the image is mirrored about the centres of its last pixels; else about their
            outer edges.
    """
    size = SIDE - 1 if about_centres else SIDE
    shift = 0 if about_centres else 1
    grid = torch.stack((columns, rows), -1) * 2 + shift
    return F.grid_sample(x, grid / size - 1, padding_mode="reflection", align_corners=about_centres)


def plasma(count: int, decay: float, rng: torch.Generator) -> Tensor:
    """Return height maps (count, 32, 32) in [0, 1], by the diamond-square algorithm on a grid without borders.

    Args:
        count: Number of maps.
        decay: By which the random heights shrink from one level of the grid to the next.
        rng: Draws the heights.
    """
    grid = torch.zeros(count, SIDE, SIDE, dtype=torch.double)
    step, height = SIDE, 100.0
    while step >= 2:
        half = step // 2

        def mean(total: Tensor, height: float = height) -> Tensor:
            drawn = torch.rand(total.shape, generator=rng, dtype=torch.double) * 2 - 1
            return total / 4 + height**2 * drawn

        corners = grid[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        grid[:, half::step, half::step] = mean(pairs + pairs.roll(-1, 2))
        centres = grid[:, half::step, half::step]
        grid[:, ::step, half::step] = mean(centres + centres.roll(1, 1) + corners + corners.roll(-1, 2))
        grid[:, half::step, ::step] = mean(centres + centres.roll(1, 2) + corners + corners.roll(-1, 1))
        step, height = half, height / decay
    grid -= grid.amin((1, 2), keepdim=True)
    return (grid / grid.amax((1, 2), keepdim=True)).float()
