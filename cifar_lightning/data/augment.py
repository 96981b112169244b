"""Random flips, translations, rotations, zooms and cutouts of whole batches, drawn for each image on its own.

torchvision's transforms draw one set of parameters for a batch; here every image has its own, at the cost of one
gather. The draws come first and apart from their use: an epoch is drawn at once from one generator, and a batch takes
its rows. So an image is augmented alike whatever the batch size, the device and the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lightning.seeding import generator

__all__ = ["Augmentation", "Draws", "Flip", "apply_draws", "cutout", "flip_translate", "resize", "warp"]

Flip = bool | Literal["alternating"]

CUTOUT_FILL = (125, 123, 114)
"""Cutout paints the mean colour of the CIFAR-10 training images: zero after normalisation."""


@dataclass(frozen=True)
class Draws:
    """What was drawn for n images; a field is None where its augmentation is off.

    Attributes:
        flip: bool (n,), mirror left to right.
        shift: int64 (n, 2), rows down and columns right in pixels.
        hole: int64 (n, 2), row and column of the centre of the square to cut out.
        warp: float (n, 2), angle in degrees against the clock and factor of size.
        hole_px: side of that square in pixels.
    """

    flip: Tensor | None
    shift: Tensor | None
    hole: Tensor | None
    warp: Tensor | None = None
    hole_px: int = 0

    def _each(self, change: Callable[[Tensor], Tensor]) -> Draws:
        drawn = (self.flip, self.shift, self.hole, self.warp)
        flip, shift, hole, warp = (None if d is None else change(d) for d in drawn)
        return Draws(flip, shift, hole, warp, self.hole_px)

    def __getitem__(self, rows: slice | Tensor) -> Draws:
        """The draws of some of the images."""
        return self._each(lambda drawn: drawn[rows])

    def to(self, device: torch.device) -> Draws:
        """The same draws on another device."""
        return self._each(lambda drawn: drawn.to(device))


@dataclass(frozen=True)
class Augmentation:
    """Which augmentations are on, and their sizes.

    Attributes:
        flip: mirror half of the images left to right: others each epoch (True), or those of every even epoch and the
            rest in every odd one ("alternating"), so that two epochs show both sides of each image (Jordan 2024,
            arXiv 2404.00498).
        translate_px: largest shift in each direction in pixels, with reflection at the border; 0 is off.
        cutout_px: side of the square cut out of each image, in pixels; 0 is off. The centre is anywhere in the image,
            so the square may stick out (DeVries and Taylor 2017, arXiv 1708.04552).
        rotate_degrees: largest angle to turn each image by, either way, with reflection at the border; 0 is off.
        zoom_percent: largest change of size of each image in percent: by 25, from 1 / 1.25 to 1.25 times; 0 is off.
    """

    flip: Flip = False
    translate_px: int = 0
    cutout_px: int = 0
    rotate_degrees: float = 0.0
    zoom_percent: float = 0.0

    def problems(self, size: int = 32) -> list[str]:
        """What is wrong with the sizes for images of `size` x `size` pixels; empty when all is well."""
        found = []
        if not 0 <= self.translate_px < size:
            found.append(f"Expected `data.translate_px` in [0, {size - 1}] pixels, got {self.translate_px}.")
        if not 0 <= self.cutout_px <= size:
            found.append(f"Expected `data.cutout_px` in [0, {size}] pixels, got {self.cutout_px}.")
        if not 0 <= self.rotate_degrees <= 180:
            found.append(f"Expected `data.rotate_degrees` in [0, 180] degrees, got {self.rotate_degrees}.")
        if not 0 <= self.zoom_percent <= 100:
            found.append(f"Expected `data.zoom_percent` in [0, 100] percent, got {self.zoom_percent}.")
        return found

    def draw(self, n: int, rng: torch.Generator, size: int = 32) -> Draws:
        """Draws the parameters of n images, on the CPU."""
        t, g = self.translate_px, rng
        return Draws(
            flip=torch.rand(n, generator=g) < 0.5 if self.flip else None,
            shift=torch.randint(-t, t + 1, (n, 2), generator=g) if t else None,
            hole=torch.randint(0, size, (n, 2), generator=g) if self.cutout_px else None,
            warp=self._draw_warp(n, g) if self.rotate_degrees or self.zoom_percent else None,
            hole_px=self.cutout_px,
        )

    def _draw_warp(self, n: int, rng: torch.Generator) -> Tensor:
        """Angles, uniform, and factors of size, whose logarithms are uniform: twice as likely as half."""
        angle, zoom = torch.rand(2, n, generator=rng) * 2 - 1
        return torch.stack([angle * self.rotate_degrees, (1 + self.zoom_percent / 100) ** zoom], dim=1)

    def draw_epoch(self, n: int, seed: int, epoch: int) -> Draws:
        """Draws the parameters of all n images of a split for one epoch, on the CPU."""
        draws = self.draw(n, generator("augment", seed, epoch))
        if self.flip == "alternating":
            first = torch.rand(n, generator=generator("flip", seed)) < 0.5
            draws = replace(draws, flip=first ^ bool(epoch % 2))
        return draws


def apply_draws(images: Tensor, draws: Draws) -> Tensor:
    """Augments a batch.

    Args:
        images: uint8 (B, 3, H, W); never changed in place.
        draws: the parameters of these B images, on their device.

    Returns:
        uint8 (B, 3, H, W).
    """
    if draws.warp is not None:
        images = warp(images, draws.warp[:, 0], draws.warp[:, 1])
    if draws.flip is not None or draws.shift is not None:
        images = flip_translate(images, draws.flip, draws.shift)
    if draws.hole is not None:
        images = cutout(images, draws.hole, draws.hole_px)
    return images


def flip_translate(images: Tensor, flip: Tensor | None, shift: Tensor | None) -> Tensor:
    """Mirrors and shifts each image on its own, with reflection at the border (the edge pixel is not repeated).

    The image is moved first and mirrored after. One gather serves both; the reflection is arithmetic on the indices,
    so nothing is padded.

    Args:
        images: any dtype, (B, C, H, W).
        flip: bool (B,), or None for no flips.
        shift: int64 (B, 2), rows down and columns right in pixels, each below H and W; or None for no shifts.
    """
    n, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(n, height)
    cols = torch.arange(width, device=images.device).expand(n, width)
    if shift is not None:
        rows = reflect(rows - shift[:, :1], height)
        cols = reflect(cols - shift[:, 1:], width)
    if flip is not None:
        cols = torch.where(flip[:, None], cols.flip(1), cols)
    pixels = (rows[:, :, None] * width + cols[:, None, :]).view(n, 1, -1).expand(n, channels, -1)
    return images.reshape(n, channels, -1).gather(2, pixels).view(n, channels, height, width)


def warp(images: Tensor, angle: Tensor, zoom: Tensor) -> Tensor:
    """Turns and scales each image on its own about its centre, with bilinear weights and reflection at the border.

    Args:
        images: uint8 (B, 3, S, S).
        angle: float (B,), degrees against the clock.
        zoom: float (B,), above 1 to enlarge what the image shows.

    Returns:
        uint8 (B, 3, S, S).
    """
    radians = angle * (math.pi / 180)
    cos, sin, zero = radians.cos() / zoom, radians.sin() / zoom, torch.zeros_like(zoom)
    # The inverse of the movement, from a place in the new image to the one that it shows; rows count downwards.
    where = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(where, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    return moved.round_().clamp_(0, 255).to(torch.uint8)


def reflect(index: Tensor, size: int) -> Tensor:
    """Folds indices in (-size, 2 * size - 1) back into [0, size), mirrored at both ends."""
    index = index.abs()
    return torch.minimum(index, 2 * (size - 1) - index)


def cutout(images: Tensor, centre: Tensor, side_px: int) -> Tensor:
    """Paints one square of each image with the mean colour.

    Args:
        images: uint8 (B, 3, H, W).
        centre: int64 (B, 2), row and column of the centre; for an even side, the pixel below and right of it.
        side_px: side of the square in pixels; what lies outside the image is lost.
    """
    height, width = images.shape[-2:]
    start = centre - side_px // 2
    rows = torch.arange(height, device=images.device) - start[:, :1]
    cols = torch.arange(width, device=images.device) - start[:, 1:]
    hole = ((rows >= 0) & (rows < side_px))[:, :, None] & ((cols >= 0) & (cols < side_px))[:, None, :]
    hole = hole.to(images.dtype)  # as numbers: twice as fast on a CPU as filling where a mask is true
    painted = images * (1 - hole)[:, None]
    for channel, value in enumerate(CUTOUT_FILL):
        painted[:, channel].add_(hole, alpha=value)
    return painted


def resize(images: Tensor, size: int) -> Tensor:
    """Scales a batch down, with bilinear weights over all pixels that a new one covers.

    Args:
        images: uint8 (B, 3, H, W).
        size: side of the new images in pixels.

    Returns:
        uint8 (B, 3, size, size); the same tensor when there is nothing to do.
    """
    if images.shape[-1] == size:
        return images
    # In floats: not every device has this for bytes. Rounding costs less than the noise of the camera.
    small = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    return small.round_().clamp_(0, 255).to(torch.uint8)
