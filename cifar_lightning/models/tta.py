"""Test-time augmentation: the mean of the logits over mirrored and shifted views of each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

__all__ = ["TTAName", "tta_logits"]

TTAName = Literal["none", "flip", "flip_translate"]


def tta_logits(net: Callable[[Tensor], Tensor], images: Tensor, tta: TTAName) -> Tensor:
    """Logits of a batch, averaged over views.

    "flip" averages the image and its mirror image. "flip_translate" adds both shifted one pixel up and left and one
    pixel down and right (reflected at the border), at half the weight in all, as airbench94 does (Jordan 2024,
    arXiv 2404.00498).

    Args:
        net: from normalised images to logits (B, 10).
        images: normalised float (B, 3, H, W).
        tta: which views; "none" is the image alone.
    """

    def mirrored(x: Tensor) -> Tensor:
        return (net(x) + net(x.flip(3))) / 2

    if tta == "none":
        return net(images)
    logits = mirrored(images)
    if tta == "flip_translate":
        height, width = images.shape[-2:]
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        shifted = [mirrored(padded[:, :, i : i + height, i : i + width]) for i in (0, 2)]
        logits = (logits + (shifted[0] + shifted[1]) / 2) / 2
    return logits
