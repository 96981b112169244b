"""The corruptions of CIFAR-10-C, made from images instead of downloaded.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019 (arXiv
1903.12261). The constants and the order of operations are those of `make_cifar_c.py`, with which the authors made their
files (github.com/hendrycks/robustness, commit ca36008). Frost is left out: it needs photographs.

Whole batches are corrupted at once, on the device of the images. Everything random is drawn on the CPU from a seed, so
that the same images come out on every machine but for rounding.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cifar_lightning.data.image_filters import (
    SIDE,
    blur_along,
    both_ways,
    box_matrix,
    gaussian_matrix,
    plasma,
    sample,
    zoom_matrix,
)
from cifar_lightning.seeding import generator

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]

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
