"""Batches by indexing uint8 tensors in memory: no worker processes, and no Python loop over images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Trainer
from torch import Tensor

from cifar_lightning import CLASSES
from cifar_lightning.data.augment import Augmentation, apply_draws, draw_epoch, resize
from cifar_lightning.seeding import generator

__all__ = ["Batch", "BatchLoader", "batch_bounds", "check_batch", "gathered", "stretch_over_epochs"]


class Batch(NamedTuple):
    """A batch of one process.

    Attributes:
        images: uint8 (B, 3, 32, 32), or smaller in an epoch of smaller images.
        labels: int64 (B,).
        indices: int64 (B,), the positions of the images in their split.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


def check_batch(batch: object) -> None:
    """Check that a loader yields a `Batch`; a custom loader may yield anything.

    Raises:
        ValueError: if it is not, with what is wrong.
    """
    problems = []
    if not isinstance(batch, Batch):
        problems.append(f"it is a {type(batch).__name__}, not a cifar_lightning.data.loader.Batch")
    elif others := [name for name, value in batch._asdict().items() if not isinstance(value, Tensor)]:
        problems.append(f"{', '.join(others)} are not tensors")
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
            problems.append(f"the numbers differ: {sizes}")
    if problems:
        raise ValueError(f"Expected the data loader to yield batches of CIFAR-10, got one where {'; '.join(problems)}.")


class Bounds(NamedTuple):
    """Place of a batch in the order of an epoch, and its weight.

    Attributes:
        first: Position of its first image.
        last: Position after its last image.
        weight: Factor on the mean loss of the batch, with which the mean over the batches of an optimizer step is the
            mean over its images; 1 if all of them have the same size.
    """

    first: int
    last: int
    weight: float


def batch_bounds(n: int, batch_size: int, rank: int, world_size: int, accumulate: int = 1) -> list[Bounds]:
    """Divide n samples into optimizer steps, and each step into batches.

    Every sample is in exactly one batch of one process, and all processes take the same number of batches. Steps differ
    by at most one sample, and so do the batches of a step: none is small, dropped, or padded with samples that count
    twice. The samples of a step are the same however it is divided into batches and processes.

    Args:
        n: number of samples.
        batch_size: largest batch of one process. (Batches of 1 become 1 or 2 if the last step would leave a process
            without a sample.)
        rank: this process, in [0, world_size).
        world_size: number of processes.
        accumulate: batches of each process in an optimizer step.

    Returns:
        For each batch of this process, the first position of its samples, the last plus one, and its weight.

    Raises:
        ValueError: if there are fewer samples than batches in a step.
    """
    parts = world_size * accumulate
    if n < parts:
        what = f"each of the {world_size} processes" if accumulate == 1 else f"each of the {parts} batches of a step"
        raise ValueError(f"Expected at least one image for {what}, got {n} images.")
    steps = min(-(-n // (batch_size * parts)), n // parts)
    bounds = []
    for step in range(steps):
        start, size = step * n // steps, (step + 1) * n // steps - step * n // steps
        for part in range(rank, parts, world_size):
            first, last = part * size // parts, (part + 1) * size // parts
            bounds.append(Bounds(start + first, start + last, (last - first) * parts / size))
    return bounds


def stretch_over_epochs(values: Sequence[int], epochs: int) -> list[int]:
    """Return one value for each epoch, taken evenly from the first of the given values to the last.

    Args:
        values: in the order of the training; returned as they are if there is one for each epoch.
        epochs: length of the training; below 1 if it is unknown, which returns the values as they are.
    """
    if not values or epochs < 1:
        return list(values)
    if epochs == 1:
        return [values[-1]]
    return [values[round(epoch * (len(values) - 1) / (epochs - 1))] for epoch in range(epochs)]


class BatchLoader:
    """Iterates over a set of images in batches; replaces a `DataLoader` for Lightning.

    The order and the augmentation of an epoch are drawn for the whole set from (seed, epoch). They depend neither on
    the batch size nor on the number of processes, and a resumed run draws the same ones. The only state to save is the
    number of batches that are done, for a checkpoint inside an epoch.

    Args:
        images: uint8 (N, 3, 32, 32), on the device of the batches.
        labels: int64 (N,), on the same device.
        batch_size: largest batch of one process.
        augmentations: to apply to each batch, in order; empty for the images as they are.
        sizes: side in pixels to which the images of each epoch are scaled, the last one from then on; empty for the
            size that they have.
        shuffle: use a new order in each epoch.
        fixed: use the order of the first epoch in each, so that the first batches always hold the same images.
        seed: seed of the order and the augmentations.
        rank: this process.
        world_size: number of processes that share the images.
        accumulate: batches of each process in an optimizer step.

    Raises:
        ValueError: if there are fewer images than batches in a step.
    """

    batch_sampler = None
    """Lightning looks here before `sampler`."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        augmentations: Sequence[Augmentation] = (),
        sizes: Sequence[int] = (),
        shuffle: bool = False,
        fixed: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
    ) -> None:
        self.images = images
        self.labels = labels
        self.augmentations = list(augmentations)
        self.sizes = tuple(sizes)
        self.shuffle = shuffle
        self.fixed = fixed
        self.seed = seed
        self.epoch = 0
        self._done = 0
        self._resume: dict[str, int] = {}
        self._bounds = batch_bounds(len(labels), batch_size, rank, world_size, accumulate)

    @property
    def sampler(self) -> BatchLoader:
        """Return this loader: Lightning calls `sampler.set_epoch` before each epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, of the next iteration."""
        self.epoch = epoch
        self._done = 0

    def progress(self) -> dict[str, int]:
        """Return how many batches of the current epoch are done."""
        return {"epoch": self.epoch, "done": self._done, "batches": len(self)}

    def resume(self, progress: dict[str, int]) -> None:
        """Start the next iteration over the same epoch after the batches that are done.

        Args:
            progress: of the interrupted loader.

        Raises:
            ValueError: if the epoch was interrupted and has another number of batches now.
        """
        if 0 < progress["done"] < progress["batches"] != len(self):
            raise ValueError(
                f"Expected {progress['batches']} batches per epoch, because the checkpoint was made inside one, got "
                f"{len(self)}. Continue with the images, the `data.batch_size` and the devices that the run had."
            )
        self._resume = progress

    @property
    def image_size(self) -> int | None:
        """Side in pixels to which the images of this epoch are scaled, or None if they are not."""
        return self.sizes[min(self.epoch, len(self.sizes) - 1)] if self.sizes else None

    def weight(self, index: int) -> float:
        """Return the weight of a batch, counted from the start of an epoch."""
        return self._bounds[index].weight

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        return len(self._bounds)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the current epoch, or those left of it when it is resumed."""
        n, device = len(self.labels), self.labels.device
        order = torch.arange(n)
        if self.shuffle:
            order = torch.randperm(n, generator=generator("shuffle", self.seed, 0 if self.fixed else self.epoch))
        draws = move_data_to_device(draw_epoch(self.augmentations, order, self.seed, self.epoch), device)
        order = order.to(device)
        resumed, self._resume = self._resume, {}
        start = resumed["done"] if resumed.get("epoch") == self.epoch else 0
        for done, (first, last, _) in enumerate(self._bounds[start:], start + 1):
            self._done = done
            indices = order[first:last]
            images = self.images.index_select(0, indices)
            images = apply_draws(images, self.augmentations, draws, slice(first, last))
            if self.image_size is not None:
                images = resize(images, self.image_size)
            yield Batch(images, self.labels.index_select(0, indices), indices)


def gathered(trainer: Trainer, batches: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Gather the outputs for the batches of all processes on the CPU, in the order of the split.

    Every process has to call it.

    Args:
        trainer: The trainer.
        batches: For each batch of this process the indices (B,) of its images in their split, and other rows (B, ...).

    Returns:
        The indices (N,) and the other rows (N, ...); an empty list if there was no batch.
    """
    mine = [torch.cat(parts).cpu() for parts in zip(*batches, strict=True)]
    if trainer.world_size > 1:
        everyone: list[list[Tensor]] = [[] for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(everyone, mine)
        mine = [torch.cat(parts) for parts in zip(*(parts for parts in everyone if parts), strict=True)]
    order = mine[0].argsort() if mine else None
    return [part[order] for part in mine]
