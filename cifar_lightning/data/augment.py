"""Random changes of training images: whole batches at once, but drawn for each image on its own.

torchvision's transforms draw one set of parameters for a batch. Here every image has its own, and each augmentation is
a few tensor operations. Random parameters are drawn first, for a whole epoch from one generator, and applied later,
batch by batch. So an image is augmented alike whatever the batch size, the device and the number of processes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from cifar_lightning.seeding import derive_seed, generator

__all__ = [
    "Augmentation",
    "Flip",
    "StandardAugmentation",
    "apply_draws",
    "cutout",
    "draw_epoch",
    "flip_translate",
    "resize",
    "warp",
]

Flip = bool | Literal["alternating"]

MEAN_COLOUR = (125, 123, 114)
"""Of the CIFAR-10 training images: zero after normalisation. Cutout paints it, and contrast is the distance from it."""


class Augmentation(ABC):
    """A random change of training images. To add one, write a subclass and name it in `data.augmentations`.

    `draw` returns the random parameters of a whole epoch, and `apply` uses those of a batch. Both must depend on
    nothing but their arguments and the options of the class; then training is the same on any number of devices, and
    the same again when it is resumed. Each augmentation has a generator of its own, so that adding one changes nothing
    that the others draw.

    Example, in a file `invert.py`, for `--data.augmentations+ invert.Invert --data.augmentations.share 0.2`::

        class Invert(Augmentation):
            def __init__(self, share: float = 0.1) -> None:
                self.share = share  # of the images

            def draw(self, indices: Tensor, rng: torch.Generator, epoch: int) -> Tensor:
                return torch.rand(len(indices), generator=rng) < self.share

            def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
                return torch.where(drawn[:, None, None, None], 255 - images, images)
    """

    @abstractmethod
    def draw(self, indices: Tensor, rng: torch.Generator, epoch: int) -> Any:
        """Draw the parameters of all images of an epoch.

        Args:
            indices: int64 (N,), the position of each image in the training set, in the order in which the epoch
                shows them; on the CPU.
            rng: CPU generator to draw from, seeded by the seed of the run, the name of the class and the epoch.
            epoch: number of the epoch, from 0.

        Returns:
            A CPU tensor whose rows belong to the images of `indices`, or a tuple or dictionary of such tensors.
        """

    @abstractmethod
    def apply(self, images: Tensor, drawn: Any) -> Tensor:
        """Augment a batch.

        Args:
            images: uint8 (B, 3, 32, 32); leave it unchanged.
            drawn: what `draw` returned, cut to the rows of these B images, on their device.

        Returns:
            uint8 (B, 3, 32, 32).
        """

    def draw_epoch(self, indices: Tensor, seed: int, epoch: int) -> Any:
        """Call `draw` with the generator of a seed and an epoch."""
        return self.draw(indices, generator("augment", type(self).__qualname__, seed, epoch), epoch)


class StandardAugmentation(Augmentation):
    """Flips, translations, rotations, zooms, changes of tone and cutouts, each by one number in the recipes.

    Args:
        flip: mirror a random half of the images left to right, drawn anew in each epoch (True), or drawn once, with the
            other half mirrored in odd epochs ("alternating"; Jordan 2024, arXiv 2404.00498).
        translate_px: largest shift in each direction in pixels, with reflection at the border; 0 is off.
        cutout_px: side of the square cut out of each image, in pixels; 0 is off. The centre is anywhere in the image,
            so the square may extend beyond it (DeVries and Taylor 2017, arXiv 1708.04552).
        rotate_degrees: largest angle to rotate each image by, either way, with reflection at the border; 0 is off.
        zoom_percent: largest change of size of each image in percent: by 25, from 1 / 1.25 to 1.25 times; 0 is off.
        brightness_percent: largest value added to all pixels of an image, either way, in percent of 255; 0 is off.
        contrast_percent: largest change of the distance of all pixels of an image from the mean colour of the training
            images, in percent: by 10, from 0.9 to 1.1 times; 0 is off.
    """

    def __init__(
        self,
        flip: Flip = False,
        translate_px: int = 0,
        cutout_px: int = 0,
        rotate_degrees: float = 0.0,
        zoom_percent: float = 0.0,
        brightness_percent: float = 0.0,
        contrast_percent: float = 0.0,
    ) -> None:
        self.flip = flip
        self.translate_px = translate_px
        self.cutout_px = cutout_px
        self.rotate_degrees = rotate_degrees
        self.zoom_percent = zoom_percent
        self.brightness_percent = brightness_percent
        self.contrast_percent = contrast_percent

    def problems(self, size: int = 32) -> list[str]:
        """Return what is wrong with the options for images of `size` x `size` pixels; empty if they are valid."""
        found = []
        if not 0 <= self.translate_px < size:
            found.append(f"Expected `data.translate_px` in [0, {size - 1}] pixels, got {self.translate_px}.")
        if not 0 <= self.cutout_px <= size:
            found.append(f"Expected `data.cutout_px` in [0, {size}] pixels, got {self.cutout_px}.")
        if not 0 <= self.rotate_degrees <= 180:
            found.append(f"Expected `data.rotate_degrees` in [0, 180] degrees, got {self.rotate_degrees}.")
        if not 0 <= self.zoom_percent <= 100:
            found.append(f"Expected `data.zoom_percent` in [0, 100] percent, got {self.zoom_percent}.")
        if not 0 <= self.brightness_percent <= 100:
            found.append(f"Expected `data.brightness_percent` in [0, 100] percent, got {self.brightness_percent}.")
        if not 0 <= self.contrast_percent <= 100:
            found.append(f"Expected `data.contrast_percent` in [0, 100] percent, got {self.contrast_percent}.")
        return found

    def draw(self, indices: Tensor, rng: torch.Generator, epoch: int = 0) -> dict[str, Tensor]:
        """Draw the parameters of N images; those of an augmentation that is off are left out.

        Returns:
            `flip`: bool (N,), mirror left to right. `shift`: int64 (N, 2), rows down and columns right in pixels.
            `hole`: int64 (N, 2), row and column of the centre of the square to cut out. `warp`: float (N, 2), angle in
            degrees counterclockwise, uniform, and factor of size, whose logarithm is uniform. `tone`: float (N, 2),
            grey levels to add and factor on the distance from the mean colour, both uniform.
        """
        n, t, drawn = len(indices), self.translate_px, {}
        if self.flip:
            drawn["flip"] = torch.rand(n, generator=rng) < 0.5
        if t:
            drawn["shift"] = torch.randint(-t, t + 1, (n, 2), generator=rng)
        if self.cutout_px:
            drawn["hole"] = torch.randint(0, 32, (n, 2), generator=rng)
        if self.rotate_degrees or self.zoom_percent:
            angle, zoom = torch.rand(2, n, generator=rng) * 2 - 1
            drawn["warp"] = torch.stack([angle * self.rotate_degrees, (1 + self.zoom_percent / 100) ** zoom], dim=1)
        if self.brightness_percent or self.contrast_percent:
            brightness, contrast = torch.rand(2, n, generator=rng) * 2 - 1
            levels, factor = brightness * self.brightness_percent * 2.55, 1 + contrast * self.contrast_percent / 100
            drawn["tone"] = torch.stack([levels, factor], dim=1)
        return drawn

    def draw_epoch(self, indices: Tensor, seed: int, epoch: int) -> dict[str, Tensor]:
        """Draw the parameters of all images of an epoch."""
        drawn = self.draw(indices, generator("augment", seed, epoch), epoch)
        if self.flip == "alternating":
            half = torch.rand(len(indices), generator=generator("flip", seed)) < 0.5
            drawn["flip"] = half[indices] ^ bool(epoch % 2)
        return drawn

    def apply(self, images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Augment a batch of uint8 (B, 3, 32, 32)."""
        if "warp" in drawn:
            images = warp(images, drawn["warp"][:, 0], drawn["warp"][:, 1])
        if "flip" in drawn or "shift" in drawn:
            images = flip_translate(images, drawn.get("flip"), drawn.get("shift"))
        if "tone" in drawn:
            images = retone(images, drawn["tone"][:, 0], drawn["tone"][:, 1])
        if "hole" in drawn:
            images = cutout(images, drawn["hole"], self.cutout_px)
        return images


def draw_epoch(augmentations: Sequence[Augmentation], indices: Tensor, seed: int, epoch: int) -> list[Any]:
    """Draw the parameters of all images of an epoch, on the CPU.

    Args:
        augmentations: in any order. Several of the same class draw different numbers.
        indices: int64 (N,), the position of each image in the training set, in the order of the epoch.
        seed: of the run.
        epoch: number of the epoch, from 0.

    Returns:
        What each augmentation draws.

    Raises:
        ValueError: if an augmentation does not draw one row for each image.
    """
    draws = []
    for i, augmentation in enumerate(augmentations):
        earlier = sum(type(other) is type(augmentation) for other in augmentations[:i])
        drawn = augmentation.draw_epoch(indices, derive_seed(seed, earlier) if earlier else seed, epoch)
        shapes: list[torch.Size] = []
        apply_to_collection(drawn, Tensor, lambda tensor, into: into.append(tensor.shape), shapes)
        if any(shape[:1] != indices.shape for shape in shapes):
            raise ValueError(
                f"Expected `{type(augmentation).__qualname__}.draw` to return tensors with one row for each of the "
                f"{len(indices)} images, got the shapes {', '.join(str(tuple(shape)) for shape in shapes)}."
            )
        draws.append(drawn)
    return draws


def apply_draws(images: Tensor, augmentations: Sequence[Augmentation], draws: Sequence[Any], rows: slice) -> Tensor:
    """Augment a batch, by one augmentation after the other.

    Args:
        images: uint8 (B, 3, 32, 32); never changed in place.
        augmentations: in the order of application.
        draws: what `draw_epoch` returned for them, on the device of the images.
        rows: the rows of the draws that belong to these B images.

    Returns:
        uint8 (B, 3, 32, 32).
    """
    for augmentation, drawn in zip(augmentations, draws, strict=True):
        images = augmentation.apply(images, apply_to_collection(drawn, Tensor, lambda tensor: tensor[rows]))
    return images


def flip_translate(images: Tensor, flip: Tensor | None, shift: Tensor | None) -> Tensor:
    """Mirror and shift each image on its own, with reflection at the border (the edge pixel is not repeated).

    The image is shifted first and mirrored second, by a single gather. The reflection is arithmetic on the indices, so
    nothing is padded.

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
    """Rotate and scale each image on its own about its centre, with bilinear weights and reflection at the border.

    Args:
        images: uint8 (B, 3, S, S).
        angle: float (B,), degrees counterclockwise.
        zoom: float (B,), above 1 to enlarge.

    Returns:
        uint8 (B, 3, S, S).
    """
    radians = angle * (math.pi / 180)
    cos, sin, zero = radians.cos() / zoom, radians.sin() / zoom, torch.zeros_like(zoom)
    # The inverse mapping, from a place in the new image to the one in the old; rows count downwards.
    where = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(where, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    return moved.round_().clamp_(0, 255).to(torch.uint8)


def reflect(index: Tensor, size: int) -> Tensor:
    """Fold indices in (-size, 2 * size - 1) back into [0, size), mirrored at both ends."""
    index = index.abs()
    return torch.minimum(index, 2 * (size - 1) - index)


def retone(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Change brightness and contrast of each image on its own.

    Args:
        images: uint8 (B, 3, H, W).
        brightness: float (B,), grey levels that are added.
        contrast: float (B,), factor on the distance from the mean colour, after that.

    Returns:
        uint8 (B, 3, H, W), cut off at 0 and 255.
    """
    changed = images.to(contrast.dtype).mul_(contrast[:, None, None, None])
    for channel, value in enumerate(MEAN_COLOUR):
        changed[:, channel].add_((value + (brightness - value) * contrast)[:, None, None])
    return changed.round_().clamp_(0, 255).to(torch.uint8)


def cutout(images: Tensor, centre: Tensor, side_px: int) -> Tensor:
    """Paint one square of each image with the mean colour.

    Args:
        images: uint8 (B, 3, H, W).
        centre: int64 (B, 2), row and column of the centre; for an even side, the pixel below and right of it.
        side_px: side of the square in pixels; the part outside the image is ignored.
    """
    height, width = images.shape[-2:]
    start = centre - side_px // 2
    rows = torch.arange(height, device=images.device) - start[:, :1]
    cols = torch.arange(width, device=images.device) - start[:, 1:]
    hole = ((rows >= 0) & (rows < side_px))[:, :, None] & ((cols >= 0) & (cols < side_px))[:, None, :]
    hole = hole.to(images.dtype)  # arithmetic is twice as fast on a CPU as filling by a mask
    painted = images * (1 - hole)[:, None]
    for channel, value in enumerate(MEAN_COLOUR):
        painted[:, channel].add_(hole, alpha=value)
    return painted


def resize(images: Tensor, size: int) -> Tensor:
    """Scale a batch: each new pixel is interpolated between the four nearest to its centre.

    Args:
        images: uint8 (B, 3, H, W).
        size: side of the new images in pixels.

    Returns:
        uint8 (B, 3, size, size); the same tensor if it has that size.
    """
    if images.shape[-1] == size:
        return images
    # In floats: not every device supports bytes. The rounding error is below the noise of the camera.
    small = F.interpolate(images.float(), size=(size, size), mode="bilinear")
    return small.round_().clamp_(0, 255).to(torch.uint8)
