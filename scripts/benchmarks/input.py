"""The data path against the pipeline of most CIFAR-10 scripts."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from cifar_lightning.data.augment import StandardAugmentation
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.loader import BatchLoader
from cifar_lightning.data.split import ImageSet
from cifar_lightning.models.classifier import CIFAR10_MEAN, CIFAR10_STD
from cifar_lightning.models.mlp import MLPClassifier

__all__ = ["bench_input"]

FLIP, TRANSLATE_PX, CUTOUT_PX = True, 4, 8


def in_memory(train: ImageSet, batch_size: int) -> Callable[[int], Tensor]:
    """This project's path: shuffle, gather, flip, translate, cutout and normalise whole batches."""
    loader = BatchLoader(
        train.images,
        train.labels,
        batch_size,
        augmentations=[StandardAugmentation(FLIP, TRANSLATE_PX, CUTOUT_PX)],
        shuffle=True,
    )
    normalize = MLPClassifier().normalize

    def epoch(index: int) -> Tensor:
        loader.set_epoch(index)
        for batch in loader:
            last = normalize(batch.images)
        return last

    return epoch


def usual(train: ImageSet, batch_size: int, workers: int) -> Callable[[int], Tensor]:
    """The pipeline of most CIFAR-10 scripts: torchvision's CIFAR10, transforms on PIL images, a DataLoader."""
    dataset = datasets.CIFAR10.__new__(datasets.CIFAR10)  # its items, without its files, which may not be here
    dataset.data = train.images.permute(0, 2, 3, 1).numpy()
    dataset.targets = train.labels.tolist()
    dataset.target_transform = None
    dataset.transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=TRANSLATE_PX, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(CIFAR10_MEAN, CIFAR10_STD),
            transforms.RandomErasing(p=1.0, scale=((CUTOUT_PX / 32) ** 2,) * 2, ratio=(1.0, 1.0)),
        ]
    )
    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    def epoch(index: int) -> Tensor:
        for images, _ in loader:
            last = images
        return last

    return epoch


def bench_input(args: argparse.Namespace) -> dict[str, Any]:
    """Images a second of both input paths on the training images, in turn, after one unmeasured epoch of each."""
    data = CIFAR10DataModule(root=args.root, source=args.source, val_size=args.val_size)
    data.setup("fit")
    assert data.train is not None
    paths = {
        "in memory (this project)": in_memory(data.train, args.batch_size),
        f"usual (DataLoader, {args.workers} workers)": usual(data.train, args.batch_size, args.workers),
    }
    rates: dict[str, list[float]] = {name: [] for name in paths}
    for index in range(args.rounds + 1):
        for name, epoch in paths.items():
            started = time.perf_counter()
            epoch(index)
            if index:  # the first round starts workers and fills caches
                rates[name].append(len(data.train) / (time.perf_counter() - started))
    ours, theirs = rates.values()
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(f"{'input path':34} {'images/s, median':>18} {'lowest':>10} {'highest':>10}")
    for name, values in rates.items():
        print(f"{name:34} {statistics.median(values):18,.0f} {min(values):10,.0f} {max(values):10,.0f}")
    print(f"ratio in each of {args.rounds} rounds: {', '.join(f'{ratio:.1f}' for ratio in ratios)}")
    return {
        "benchmark": "input",
        "what": f"flip, translate {TRANSLATE_PX} px with reflection, cutout {CUTOUT_PX} px, normalise to float32",
        "images": len(data.train),
        "data": data.describe(),
        "batch_size": args.batch_size,
        "images_per_second": rates,
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
    }
