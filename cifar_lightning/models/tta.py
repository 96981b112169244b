"""Test-time augmentation: the mean of the logits over mirrored and shifted views of each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

__all__ = ["TTAName", "tta_logits"]

TTAName = Literal["none", "flip", "flip_translate", "flip_grid"]

SHIFTS: dict[TTAName, dict[tuple[int, int], float]] = {
    "none": {(0, 0): 1.0},
    "flip": {(0, 0): 1.0},
    "flip_translate": {(0, 0): 1 / 2, (-1, -1): 1 / 4, (1, 1): 1 / 4},
    "flip_grid": {(y, x): (2 - abs(y) / 2) * (2 - abs(x) / 2) / 16 for y in (-2, 0, 2) for x in (-2, 0, 2)},
}
"""Weight of each shift, in pixels down and right."""


def tta_logits(net: Callable[[Tensor], Tensor], images: Tensor, tta: TTAName) -> Tensor:
    """Logits of a batch, averaged over views.

    "flip" averages the image and its mirror image. "flip_translate" adds both shifted one pixel up and left and one
    pixel down and right, at half the weight in all, as airbench94 does (Jordan 2024, arXiv 2404.00498): six views.
    "flip_grid" takes both at nine places two pixels apart, with weights 1, 2, 1 along each axis: eighteen views. The
    border is filled by reflection.

    Args:
        net: from normalised images to logits (B, 10).
        images: normalised float (B, 3, H, W).
        tta: which views; "none" is the image alone.
    """
    height, width = images.shape[-2:]
    shifts = SHIFTS[tta]
    pad = max(max(abs(y), abs(x)) for y, x in shifts)
    padded = F.pad(images, (pad,) * 4, mode="reflect") if pad else images
    total: Tensor | None = None
    for (y, x), weight in shifts.items():
        view = padded[:, :, pad - y : pad - y + height, pad - x : pad - x + width]
        logits = net(view) if tta == "none" else (net(view) + net(view.flip(3))) / 2
        total = weight * logits if total is None else total + weight * logits
    assert total is not None
    return total
