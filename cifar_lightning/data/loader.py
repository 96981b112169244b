"""Batches by indexing whole uint8 tensors in memory: no worker processes, no Python loop over images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cifar_lightning import CLASSES
from cifar_lightning.data.augment import Augmentation, apply_draws, resize
from cifar_lightning.seeding import generator

__all__ = ["Batch", "BatchLoader", "batch_bounds", "check_batch", "spread"]


class Batch(NamedTuple):
    """One batch of one process.

    Attributes:
        images: uint8 (B, 3, 32, 32), or smaller where the epoch has smaller ones.
        labels: int64 (B,).
        indices: int64 (B,), the positions of the images in their split.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


def check_batch(batch: object) -> None:
    """Makes sure that what a loader yields is a `Batch`: a loader of one's own may yield anything.

    Raises:
        ValueError: saying what is wrong with it.
    """
    problems = []
    if not isinstance(batch, Batch):
        problems.append(f"it is a {type(batch).__name__}, no cifar_lightning.data.loader.Batch")
    elif others := [name for name, value in batch._asdict().items() if not isinstance(value, Tensor)]:
        problems.append(f"{', '.join(others)} are no tensors")
    else:
        images, labels, indices = batch
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            problems.append(f"images are {images.dtype} {tuple(images.shape)}, not torch.uint8 (B, 3, height, width)")
        if labels.dtype != torch.int64 or labels.ndim != 1:
            problems.append(f"labels are {labels.dtype} {tuple(labels.shape)}, not torch.int64 (B,)")
        elif len(labels) and not 0 <= labels.min() <= labels.max() < len(CLASSES):
            problems.append(f"labels go from {labels.min()} to {labels.max()}, not from 0 to {len(CLASSES) - 1}")
        if not images.shape[:1] == labels.shape[:1] == indices.shape:
            sizes = ", ".join(f"{tuple(value.shape[:1])} {name}" for name, value in batch._asdict().items())
            problems.append(f"there are not as many of each: {sizes}")
    if problems:
        raise ValueError(f"Expected the data loader to yield batches of CIFAR-10, got one where {'; '.join(problems)}.")


def batch_bounds(n: int, batch_size: int, rank: int, world_size: int) -> list[tuple[int, int]]:
    """Cuts n samples into steps, and each step between the processes.

    All samples are in exactly one batch of one process, all processes take the same number of steps, and batch sizes
    differ by at most one: no step is small, none is dropped and none is padded with samples that count twice.

    Args:
        n: number of samples.
        batch_size: largest batch of one process. (Batches of 1 become 1 or 2 where the last step would leave some
            process without a sample.)
        rank: this process, in [0, world_size).
        world_size: number of processes.

    Returns:
        For each step, the first and one past the last position of this process's samples.

    Raises:
        ValueError: when there are fewer samples than processes.
    """
    if n < world_size:
        raise ValueError(f"Expected at least one image for each of the {world_size} processes, got {n} images.")
    steps = min(-(-n // (batch_size * world_size)), n // world_size)
    bounds = []
    for step in range(steps):
        first, last = step * n // steps, (step + 1) * n // steps
        size = last - first
        bounds.append((first + rank * size // world_size, first + (rank + 1) * size // world_size))
    return bounds


def spread(values: Sequence[int], epochs: int) -> list[int]:
    """One value for each epoch, evenly along the given ones: the first for the first, the last for the last.

    Args:
        values: along the training; as many as there are epochs stay as they are.
        epochs: epochs of the training; below 1 when it has no known length, which leaves the values alone.
    """
    if not values or epochs < 1:
        return list(values)
    if epochs == 1:
        return [values[-1]]
    return [values[round(epoch * (len(values) - 1) / (epochs - 1))] for epoch in range(epochs)]


class BatchLoader:
    """Iterates over one split in batches; what Lightning takes in place of a `DataLoader`.

    The order and the augmentation of an epoch are drawn for the whole split from (seed, epoch). They depend on
    neither the batch size nor the number of processes: epoch 7 is epoch 7, in a run that was resumed as in one that was
    not. The only state to save is how many of its batches are done, where a checkpoint is made inside an epoch.

    Args:
        images: uint8 (N, 3, 32, 32), on the device where batches are wanted.
        labels: int64 (N,), on the same device.
        batch_size: largest batch of one process.
        augmentation: what to draw for each image, or None for images as they are.
        sizes: side in pixels to which the images of each epoch are scaled, the last one from then on; empty leaves
            them as they are.
        shuffle: take the images in a new order each epoch, or as they stand.
        fixed: keep the order of the first epoch, so that the first batches always hold the same images.
        seed: seed of the order and the augmentation.
        rank: this process.
        world_size: number of processes that share the split.

    Raises:
        ValueError: when there are fewer images than processes.
    """

    batch_sampler = None
    """Lightning looks here before it looks at `sampler`."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        augmentation: Augmentation | None = None,
        sizes: Sequence[int] = (),
        shuffle: bool = False,
        fixed: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.images = images
        self.labels = labels
        self.augmentation = augmentation
        self.sizes = tuple(sizes)
        self.shuffle = shuffle
        self.fixed = fixed
        self.seed = seed
        self.epoch = 0
        self._done = 0
        self._resume: dict[str, int] = {}
        self._bounds = batch_bounds(len(labels), batch_size, rank, world_size)

    @property
    def sampler(self) -> BatchLoader:
        """This loader: before each epoch Lightning calls `set_epoch` of whatever stands under this name."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, counted from 0, that the next iteration draws."""
        self.epoch = epoch
        self._done = 0

    def progress(self) -> dict[str, int]:
        """How far the current epoch is."""
        return {"epoch": self.epoch, "done": self._done, "batches": len(self)}

    def resume(self, progress: dict[str, int]) -> None:
        """Lets the next iteration over the same epoch begin after the batches that are done.

        Args:
            progress: of the loader that was interrupted.

        Raises:
            ValueError: in the middle of an epoch that is cut into another number of batches.
        """
        if 0 < progress["done"] < progress["batches"] != len(self):
            raise ValueError(
                f"Expected {progress['batches']} batches an epoch, as the checkpoint was made inside one, got "
                f"{len(self)}. Continue with the images, the `data.batch_size` and the devices that the run had."
            )
        self._resume = progress

    @property
    def image_size(self) -> int | None:
        """Side in pixels to which the images of this epoch are scaled, or None where they stay as they are."""
        return self.sizes[min(self.epoch, len(self.sizes) - 1)] if self.sizes else None

    def __len__(self) -> int:
        """Number of batches of this process."""
        return len(self._bounds)

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of the current epoch; those that are left where it was interrupted."""
        n, device = len(self.labels), self.labels.device
        order = torch.arange(n)
        if self.shuffle:
            order = torch.randperm(n, generator=generator("shuffle", self.seed, 0 if self.fixed else self.epoch))
        order = order.to(device)
        draws = None
        if self.augmentation is not None:
            draws = self.augmentation.draw_epoch(n, self.seed, self.epoch).to(device)
        resumed, self._resume = self._resume, {}
        start = resumed["done"] if resumed.get("epoch") == self.epoch else 0
        for done, (first, last) in enumerate(self._bounds[start:], start + 1):
            self._done = done
            indices = order[first:last]
            images = self.images.index_select(0, indices)
            if draws is not None:
                images = apply_draws(images, draws[first:last])
            if self.image_size is not None:
                images = resize(images, self.image_size)
            yield Batch(images, self.labels.index_select(0, indices), indices)
