"""One part of a data set as two tensors, and the stratified cut of a part into training and validation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Split", "content_fingerprint", "evenly", "stratified_indices"]


@dataclass(frozen=True)
class Split:
    """Images and labels of one part of a data set, whole and in memory.

    Attributes:
        images: uint8 pixels in [0, 255], shape (N, 3, 32, 32), RGB.
        labels: int64 class indices in [0, 9], shape (N,).
        fingerprint: hexadecimal SHA-256 of the pixels and labels: equal exactly when the data are.
    """

    images: Tensor
    labels: Tensor
    fingerprint: str

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)


def content_fingerprint(images: Tensor, labels: Tensor) -> str:
    """SHA-256 over the bytes of the images, then of the labels, in order.

    Args:
        images: uint8, shape (N, 3, 32, 32), on the CPU.
        labels: int64, shape (N,), on the CPU.
    """
    digest = hashlib.sha256(images.contiguous().numpy().data)
    digest.update(labels.contiguous().numpy().data)
    return digest.hexdigest()


def stratified_indices(labels: Tensor, val_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cuts the samples into training and validation so that every class keeps its share in both.

    Each class gives `floor(share)` samples to validation; the samples that rounding leaves over come from the
    classes with the largest remainders (ties: the lower class index), so the size is exact.

    Args:
        labels: int64 class indices, shape (N,).
        val_size: number of validation samples, in [0, N).
        seed: seed of the choice within each class.

    Returns:
        Training indices (N - val_size,) and validation indices (val_size,), int64, each ascending.

    Raises:
        ValueError: when `val_size` is negative or leaves no training sample.
    """
    if not 0 <= val_size < len(labels):
        raise ValueError(
            f"Expected `data.val_size` to be at least 0 and less than the {len(labels)} training images, "
            f"got {val_size}. Choose a smaller validation split."
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
        is_val[members[torch.randperm(len(members), generator=generator)[:n]]] = True
    return (~is_val).nonzero().squeeze(1), is_val.nonzero().squeeze(1)


def evenly(n: int, count: int) -> Tensor:
    """At most `count` of n positions, spread evenly from the first to the last; int64."""
    return torch.linspace(0, n - 1, min(n, count)).long()
