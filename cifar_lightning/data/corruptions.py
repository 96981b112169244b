"""The corruptions of CIFAR-10-C, made from images instead of downloaded.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019 (arXiv
1903.12261). The constants and the order of operations are those of `make_cifar_c.py`, with which the authors made their
files (github.com/hendrycks/robustness, commit ca36008). Frost is left out: it needs photographs.

Whole batches are corrupted at once, on the device of the images. Everything random is drawn on the CPU from a seed, so
that the same images come out on every machine but for rounding.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cifar_lightning.seeding import generator

__all__ = ["CORRUPTIONS", "SEVERITIES", "SIDE", "corrupt"]

SIDE = 32
SEVERITIES = (1, 2, 3, 4, 5)
CHUNK = 500
"""Images that share a generator: what is drawn for the first ones does not depend on how many follow."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""


def corrupt(images: Tensor, name: str, severity: int, seed: int = 0) -> Tensor:
    """Return corrupted images.

    Args:
        images: uint8 (N, 3, 32, 32).
        name: One of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: Of everything random.

    Returns:
        uint8 (N, 3, 32, 32).

    Raises:
        ValueError: For another name, severity or kind of images.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"Expected a corruption of {', '.join(CORRUPTIONS)}, got {name}.")
    if severity not in SEVERITIES:
        raise ValueError(f"Expected a severity from 1 to 5, got {severity}.")
    if images.dtype != torch.uint8 or images.shape[1:] != (3, SIDE, SIDE):
        raise ValueError(f"Expected uint8 images (N, 3, 32, 32), got {images.dtype} {tuple(images.shape)}.")
    function, constants = CORRUPTIONS[name]
    parts = [
        function(part, constants[severity - 1], generator("corruption", seed, name, severity, i))
        for i, part in enumerate(images.split(CHUNK))
    ]
    return torch.cat(parts) if parts else images.clone()


# ---- helpers ---------------------------------------------------------------------------------------------------------


def floats(images: Tensor) -> Tensor:
    """Return uint8 pixels as floats in [0, 1]."""
    return images.float() / 255


def pixels(x: Tensor) -> Tensor:
    """Return floats in [0, 1] as uint8, rounded down as in the published files."""
    return (x.clamp(0, 1) * 255 + 1e-3).to(torch.uint8)


def uniform(low: float, high: float, *shape: int, like: Tensor, rng: torch.Generator) -> Tensor:
    """Return numbers drawn from [low, high), on the device of another tensor."""
    return (torch.rand(shape, generator=rng) * (high - low) + low).to(like.device)


def normal(mean: float, std: float, *shape: int, like: Tensor, rng: torch.Generator) -> Tensor:
    """Return normal numbers, on the device of another tensor."""
    return (torch.randn(shape, generator=rng) * std + mean).to(like.device)


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


# ---- the corruptions: images uint8 (N, 3, 32, 32), the constants of a severity, a generator -> uint8 -----------------


def gaussian_noise(images: Tensor, std: float, rng: torch.Generator) -> Tensor:
    """Normal noise in each channel."""
    return pixels(floats(images) + normal(0, std, *images.shape, like=images, rng=rng))


def shot_noise(images: Tensor, photons: float, rng: torch.Generator) -> Tensor:
    """Poisson noise, of so many photons in a white pixel."""
    return pixels(torch.poisson(floats(images).cpu() * photons, rng).to(images.device) / photons)


def impulse_noise(images: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Salt and pepper: a share of the values is 0 or 255."""
    changed, salt = (uniform(0, 1, *images.shape, like=images, rng=rng) for _ in range(2))
    return torch.where(changed <= share, torch.where(salt <= 0.5, 255, 0).to(torch.uint8), images)


def defocus_blur(images: Tensor, constants: tuple[float, float], rng: torch.Generator) -> Tensor:
    """A disk of light for each point, its edge softened."""
    radius, soft = constants
    line = torch.arange(-3, 4, device=images.device)
    disk = (line**2 + line[:, None] ** 2 <= radius**2).float()
    edge = torch.exp(-(line[2:5].float() ** 2) / (2 * soft**2))
    edge = edge / edge.sum()
    kernel = F.conv2d((disk / disk.sum())[None, None], (edge[:, None] * edge)[None, None], padding=1)
    padded = F.pad(floats(images), (3,) * 4, "reflect")
    return pixels(F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3))


def glass_blur(images: Tensor, constants: tuple[float, int], rng: torch.Generator) -> Tensor:
    """Pixels taken from their neighbours above and to the left, between two blurs.

    (The published program means to swap them, but its assignment copies.)
    """
    sigma, rounds = constants
    blur = gaussian_matrix(sigma, 4.0, symmetric=False)
    moved = pixels(both_ways(blur, floats(images)))
    line = torch.arange(2, SIDE, device=images.device)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    for _ in range(rounds):
        up, left = (torch.randint(-1, 1, (2, len(images), SIDE - 2, SIDE - 2), generator=rng)).to(images.device)
        taken = moved.permute(0, 2, 3, 1)[image, line[:, None] + up, line + left]
        moved[:, :, 2:, 2:] = taken.permute(0, 3, 1, 2)
    return pixels(both_ways(blur, floats(moved)))


def motion_blur(images: Tensor, constants: tuple[int, float], rng: torch.Generator) -> Tensor:
    """A camera that moves, within 45 degrees of the horizontal."""
    radius, sigma = constants
    return pixels(blur_along(floats(images), radius, sigma, uniform(-45, 45, len(images), like=images, rng=rng)))


def zoom_blur(images: Tensor, largest: float, rng: torch.Generator) -> Tensor:
    """The mean of the image and of enlargements of its middle, in steps of a hundredth."""
    x = floats(images)
    factors = np.arange(1, largest, 0.01).tolist()
    return pixels((x + sum(both_ways(zoom_matrix(factor), x) for factor in factors)) / (len(factors) + 1))


def snow(
    images: Tensor, constants: tuple[float, float, float, float, int, float, float], rng: torch.Generator
) -> Tensor:
    """Flakes that are blurred as they fall, on a whitened image."""
    mean, std, zoom, least, radius, sigma, kept = constants
    flakes = both_ways(zoom_matrix(zoom), normal(mean, std, len(images), 1, SIDE, SIDE, like=images, rng=rng))
    flakes = floats(pixels(torch.where(flakes < least, 0.0, flakes)))
    flakes = blur_along(flakes, radius, sigma, uniform(-135, -45, len(images), like=images, rng=rng))
    x = floats(images)
    grey = (x * torch.tensor(GREY, device=x.device)[:, None, None]).sum(1, keepdim=True)
    return pixels(kept * x + (1 - kept) * torch.maximum(x, grey * 1.5 + 0.5) + flakes + flakes.rot90(2, (2, 3)))


def fog(images: Tensor, constants: tuple[float, float], rng: torch.Generator) -> Tensor:
    """Clouds from `plasma`, then as bright as before."""
    density, decay = constants
    x = floats(images)
    brightest = x.amax((1, 2, 3), keepdim=True)
    clouds = plasma(len(images), decay, rng)[:, None].to(x.device)
    return pixels((x + density * clouds) * brightest / (brightest + density))


def brightness(images: Tensor, more: float, rng: torch.Generator) -> Tensor:
    """A higher value of each pixel in the colour space HSV."""
    x = floats(images)
    value = x.amax(1, keepdim=True)
    brighter = (value + more).clamp(max=1)
    return pixels(torch.where(value > 0, x * brighter / value.clamp(min=1e-6), brighter))


def contrast(images: Tensor, kept: float, rng: torch.Generator) -> Tensor:
    """A smaller distance from the mean of each channel."""
    x = floats(images)
    mean = x.mean((2, 3), keepdim=True)
    return pixels((x - mean) * kept + mean)


def elastic_transform(images: Tensor, constants: tuple[float, float, float], rng: torch.Generator) -> Tensor:
    """A random affine map, then small displacements that vary smoothly. Constants are shares of 32 pixels."""
    amount, sigma, corner = (SIDE * share for share in constants)
    n, line = len(images), torch.arange(SIDE, device=images.device).float()
    before = torch.tensor([[26.0, 26.0], [26.0, 6.0], [6.0, 6.0]], device=images.device)
    after = before + uniform(-corner, corner, n, 3, 2, like=images, rng=rng)
    one = torch.ones(n, 3, 1, device=images.device)
    back = torch.linalg.solve(torch.cat((after, one), 2), before.expand(n, -1, -1))  # (N, 3, 2), of (x, y, 1)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    places = torch.stack((columns, rows, torch.ones_like(rows)), -1) @ back[:, None]
    x = sample(floats(images), places[..., 0], places[..., 1], about_centres=True)
    if amount:
        drawn = uniform(-1, 1, n, 2, SIDE, SIDE, like=images, rng=rng)
        moved = both_ways(gaussian_matrix(sigma, 3.0, symmetric=True), drawn) * amount
        x = sample(x, columns + moved[:, 0], rows + moved[:, 1], about_centres=False)
    return pixels(x)


def pixelate(images: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Fewer, larger pixels."""
    x = images.float()
    for size, new in ((SIDE, int(SIDE * share)), (int(SIDE * share), SIDE)):
        matrix = box_matrix(size, new).to(x.device)
        x = (x @ matrix.T + 0.5).floor()
        x = (matrix @ x + 0.5).floor()
    return x.to(torch.uint8)


def jpeg_compression(images: Tensor, quality: int, rng: torch.Generator) -> Tensor:
    """JPEG by Pillow."""
    done = []
    for image in images.permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        done.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).contiguous().to(images.device)


CORRUPTIONS: dict[str, tuple[Callable[[Tensor, Any, torch.Generator], Tensor], Sequence[Any]]] = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))),
    "glass_blur": (glass_blur, ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))),
    "motion_blur": (motion_blur, ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))),
    "zoom_blur": (zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "snow": (
        snow,
        (
            (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
            (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
        ),
    ),
    "fog": (fog, ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": (
        elastic_transform,
        ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (jpeg_compression, (80, 65, 58, 50, 40)),
}
"""Each corruption with its constants for the severities 1 to 5, by the names of the published files."""
