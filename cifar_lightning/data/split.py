"""Sets of images in memory, and the stratified split into training and validation images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["ImageSet", "SourceSplit", "content_fingerprint", "evenly_spaced", "stratified_indices"]

SourceSplit = Literal["train", "test"]
"""A split as the data set is published: 50,000 images to train and validate on, and 10,000 to test on."""


@dataclass(frozen=True)
class ImageSet:
    """Images and labels in memory.

    Attributes:
        images: uint8 pixels in [0, 255], shape (N, 3, 32, 32), RGB.
        labels: int64 class indices in [0, 9], shape (N,).
        fingerprint: hexadecimal SHA-256 of the pixels and labels of the whole published split.
    """

    images: Tensor
    labels: Tensor
    fingerprint: str

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


def content_fingerprint(images: Tensor, labels: Tensor) -> str:
    """Return the SHA-256 (hexadecimal) of the bytes of the images, then of the labels, in order.

    Args:
        images: uint8, shape (N, 3, 32, 32), on the CPU.
        labels: int64, shape (N,), on the CPU.
    """
    digest = hashlib.sha256(images.contiguous().numpy().data)
    digest.update(labels.contiguous().numpy().data)
    return digest.hexdigest()


def stratified_indices(labels: Tensor, val_size: int, seed: int, fold: int = 0) -> tuple[Tensor, Tensor]:
    """Split samples into training and validation so that every class has the same share of both.

    Each class gives `floor(share)` samples to validation. The samples that rounding leaves over come from the classes
    with the largest remainders (in a tie, the lower class index), so the size is exact.

    Args:
        labels: int64 class indices, shape (N,).
        val_size: number of validation samples, in [0, N).
        seed: seed of the choice within each class.
        fold: number of the choice, from 0: those of one seed have no sample in common, as far as they come out even.

    Returns:
        Training indices (N - val_size,) and validation indices (val_size,), int64, each ascending.

    Raises:
        ValueError: if `val_size` is negative or leaves no training sample, or there are fewer folds.
    """
    if not 0 <= val_size < len(labels):
        raise ValueError(
            f"Expected `data.val_size` to be at least 0 and less than the {len(labels)} training images, "
            f"got {val_size}. Choose a smaller validation split."
        )
    folds = len(labels) // val_size if val_size else 1
    if not 0 <= fold < folds:
        raise ValueError(
            f"Expected `data.val_fold` from 0 to {folds - 1}, as {len(labels)} training images have {folds} parts of "
            f"`data.val_size` {val_size}, got {fold}."
        )
    counts = torch.bincount(labels)
    shares = counts.double() * val_size / len(labels)
    take = shares.floor().long()
    by_remainder = torch.argsort(shares - take, descending=True, stable=True)
    take[by_remainder[: val_size - int(take.sum())]] += 1

    generator = torch.Generator().manual_seed(seed)
    is_val = torch.zeros(len(labels), dtype=torch.bool)
    for label, n in enumerate(take.tolist()):
        members = (labels == label).nonzero().squeeze(1)
        is_val[members[torch.randperm(len(members), generator=generator).roll(-fold * n)[:n]]] = True
    return (~is_val).nonzero().squeeze(1), is_val.nonzero().squeeze(1)


def evenly_spaced(n: int, count: int) -> Tensor:
    """Return at most `count` of n positions, evenly spaced from the first to the last; int64."""
    return torch.linspace(0, n - 1, min(n, count)).long()
