"""CIFAR-10 for Lightning: reads the images, holds out a validation split and makes the loaders."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, GradientAccumulationScheduler
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch import Tensor

from cifar_lightning.data.augment import Augmentation, Flip, StandardAugmentation
from cifar_lightning.data.loader import BatchLoader, stretch_over_epochs
from cifar_lightning.data.sources import default_root, find_source, load_images
from cifar_lightning.data.split import ImageSet, SourceSplit, stratified_indices
from cifar_lightning.data.synthetic import synthetic_images

__all__ = ["CIFAR10DataModule", "data_of"]

logger = logging.getLogger(__name__)

STAGES = {
    TrainerFn.FITTING: "fit",
    TrainerFn.VALIDATING: "validate",
    TrainerFn.TESTING: "test",
    TrainerFn.PREDICTING: "predict",
}


class CIFAR10DataModule(LightningDataModule):
    """The 50,000 training images, some of them held out for validation, and the 10,000 test images.

    Images are kept as uint8 in memory, on the GPU if there is one, and are augmented there in whole batches. Only
    `test` and `predict` read the test images.

    Args:
        root: Folder of the official batches (cifar-10-batches-py/ or its .tar.gz) or of class folders
            (train/<class>/*.png, test/<class>/*.png). Default: $CIFAR10_ROOT, else data/.
        source: "auto" for the real data at the root, "synthetic" for the embedded stand-in.
        download: Download the official archive (170 MB) if the root holds no data.
        batch_size: Training images per batch on one device, over which batch normalisation takes its statistics; null
            for as many as an optimizer step leaves to each device.
        images_per_step: Training images of an optimizer step, over all devices. The batches that are accumulated
            follow from it, `batch_size` and the devices. Default: one batch on each device, or as many as
            `trainer.accumulate_grad_batches` says.
        eval_batch_size: Images per batch on one device in validation, test and prediction; changes no result.
        val_size: Training images held out for validation, the same share of every class; 0 trains on all.
        split_seed: Seed of the choice of validation images, and of the synthetic images. It is not the seed of the
            run, so that runs with different seeds are compared on the same images.
        val_fold: Number of the validation split, from 0: those of one seed have no image in common. With a `val_size`
            of a fifth of the training images, 0 to 4 are the folds of a five-fold cross-validation.
        train_size: Train on only this many of the remaining images, the same share of every class; null for all.
        flip: Mirror half of the training images left to right: true draws them anew in each epoch, "alternating"
            mirrors one half in even and the other in odd epochs, false mirrors none.
        translate_px: Shift each training image by up to this many pixels each way, reflected at the border; 0 is off.
        cutout_px: Side of the square cut out of each training image, in pixels; 0 is off.
        rotate_degrees: Rotate each training image by up to this angle either way, reflected at the border; 0 is off.
        zoom_percent: Enlarge or shrink each training image by up to this share of its size; 0 is off.
        brightness_percent: Brighten or darken each training image by up to this share of 255 levels; 0 is off.
        contrast_percent: Raise or lower the contrast of each training image by up to this share; 0 is off.
        augmentations: Further augmentations, applied after these: classes that extend
            `cifar_lightning.data.augment.Augmentation`.
        image_sizes: Side in pixels of the training images from the first epoch to the last, spread evenly over them:
            small images make the first epochs cheap. Default: 32 in all epochs. For networks that accept any size.
        synthetic_train: Training images to render for source "synthetic".
        synthetic_test: Test images to render for source "synthetic".
        seed: Seed of the order and augmentation of the training images; the command line sets it to the run's.

    Raises:
        ValueError: if numbers are out of range; all of them in one message.
    """

    def __init__(
        self,
        root: str | None = None,
        source: Literal["auto", "synthetic"] = "auto",
        download: bool = False,
        batch_size: int | None = 500,
        images_per_step: int | None = None,
        eval_batch_size: int = 1000,
        val_size: int = 5000,
        split_seed: int = 0,
        val_fold: int = 0,
        train_size: int | None = None,
        flip: Flip = True,
        translate_px: int = 2,
        cutout_px: int = 0,
        rotate_degrees: float = 0.0,
        zoom_percent: float = 0.0,
        brightness_percent: float = 0.0,
        contrast_percent: float = 0.0,
        augmentations: list[Augmentation] | None = None,
        image_sizes: list[int] | None = None,
        synthetic_train: int = 10_000,
        synthetic_test: int = 2_000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root = Path(root) if root else default_root()
        self.source = source
        self.download = download
        self.batch_size = batch_size
        self.images_per_step = images_per_step
        self.eval_batch_size = eval_batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.val_fold = val_fold
        self.train_size = train_size
        self.standard = StandardAugmentation(
            flip, translate_px, cutout_px, rotate_degrees, zoom_percent, brightness_percent, contrast_percent
        )
        self.augmentations: list[Augmentation] = [self.standard, *(augmentations or [])]
        self.image_sizes = image_sizes or []
        self.synthetic_sizes: dict[SourceSplit, int] = {"train": synthetic_train, "test": synthetic_test}
        self.seed = seed
        self._check_arguments()

        self.train: ImageSet | None = None
        self.val: ImageSet | None = None
        self.test: ImageSet | None = None
        self.source_name = "synthetic" if source == "synthetic" else ""
        self._read: dict[SourceSplit, ImageSet] = {}
        self._train_loader: BatchLoader | None = None
        self._progress: dict[str, int] = {}

    def _check_arguments(self) -> None:
        problems = self.standard.problems()
        for name in ("batch_size", "images_per_step", "eval_batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                problems.append(f"Expected `data.{name}` to be at least 1 image, got {value}.")
        if self.batch_size is None and self.images_per_step is None:
            problems.append("Expected `data.batch_size` or `data.images_per_step`, got neither.")
        if self.val_size < 0:
            problems.append(f"Expected `data.val_size` to be at least 0 images, got {self.val_size}.")
        if any(not 1 <= size <= 32 for size in self.image_sizes):
            problems.append(f"Expected `data.image_sizes` in [1, 32] pixels, got {self.image_sizes}.")
        if self.train_size is not None and self.train_size < 1:
            problems.append(f"Expected `data.train_size` to be at least 1 image or null, got {self.train_size}.")
        if problems:
            raise ValueError(" ".join(problems))

    @property
    def is_synthetic(self) -> bool:
        """Whether the images are the rendered stand-in, which every number and figure must mention."""
        return self.source == "synthetic"

    def prepare_data(self) -> None:
        """Set up on one process of a machine first: it fills the cache for the others, and errors appear once.

        Raises:
            ValueError: if there are no data, with what was expected, where, and the alternatives; or if the sizes of
                the splits do not fit them.
        """
        fn = self.trainer.state.fn if self.trainer is not None else None
        for stage in ("fit", "test") if fn is None else (STAGES[fn],):
            self.setup(stage)

    def _load(self, split: SourceSplit) -> ImageSet:
        if split not in self._read:
            if self.source == "synthetic":
                warn = rank_zero_only(logger.warning)
                warn("The images are SYNTHETIC: rendered shapes, not CIFAR-10 (data.source=synthetic).")
                self._read[split] = synthetic_images(split, self.synthetic_sizes[split], self.split_seed)
            else:
                source = find_source(self.root, self.download)
                self.source_name = source.name
                self._read[split] = load_images(source, split, self.root)
        return self._read[split]

    def setup(self, stage: str) -> None:
        """Make the splits that the stage needs.

        Args:
            stage: "fit", "validate", "test" or "predict".

        Raises:
            ValueError: if there are no data, or the sizes of the splits do not fit them.
        """
        if stage == "validate" and self.val_size == 0:
            raise ValueError("Expected `data.val_size` above 0 to validate on, got 0: no images were held out.")
        if stage in ("fit", "validate") and self.val is None:
            self._hold_out(self._load("train"))
            del self._read["train"]  # copied by the split, and memory should hold it once
        if stage in ("test", "predict") and self.test is None:
            self.test = self._load("test")
        if stage == "fit" and self.trainer is not None and self.images_per_step is not None:
            self._accumulate(self.trainer, self.images_per_step)

    def accumulated_batches(self, world_size: int, given: int = 1) -> int:
        """Return the batches of each process in an optimizer step; those given where `images_per_step` is not set.

        Raises:
            ValueError: if the step does not divide evenly into batches.
        """
        if self.images_per_step is None:
            return given
        if self.batch_size is None:
            return 1
        batches, left = divmod(self.images_per_step, self.batch_size * world_size)
        if left or not batches:
            fitting = math.gcd(self.images_per_step // world_size, self.batch_size)
            raise ValueError(
                f"Expected `data.images_per_step` to be a multiple of `data.batch_size` {self.batch_size} x "
                f"{world_size} devices, got {self.images_per_step}. Set `data.batch_size` to {fitting}: batch "
                "normalisation then takes its statistics over that many images, or with `trainer.sync_batchnorm` over "
                "those of all devices."
            )
        return batches

    def _accumulate(self, trainer: Trainer, images_per_step: int) -> None:
        batches, given = self.accumulated_batches(trainer.world_size), trainer.accumulate_grad_batches
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        kinds = GradientAccumulationScheduler | BatchSizeFinder
        changing = [type(callback).__name__ for callback in callbacks if isinstance(callback, kinds)]
        if given not in (1, batches) or changing:
            got = changing[0] if changing else f"{given}"
            raise ValueError(
                f"Expected `trainer.accumulate_grad_batches` to follow from `data.images_per_step` {images_per_step}, "
                f"which makes it {batches}, got {got}. Leave it out (1), or set `data.images_per_step` to null."
            )
        trainer.accumulate_grad_batches = batches

    def images_per_batch(self, world_size: int) -> int:
        """Return the training images in a batch of each of so many devices."""
        if self.batch_size is not None:
            return self.batch_size
        assert self.images_per_step is not None
        return -(-self.images_per_step // world_size)

    def _hold_out(self, whole: ImageSet) -> None:
        train, val = stratified_indices(whole.labels, self.val_size, self.split_seed, self.val_fold)
        if self.train_size is not None and self.train_size < len(train):
            train = train[stratified_indices(whole.labels[train], self.train_size, self.split_seed)[1]]
        self.train = ImageSet(whole.images[train], whole.labels[train], whole.fingerprint)
        self.val = ImageSet(whole.images[val], whole.labels[val], whole.fingerprint)

    def held_out(self, labels: Tensor) -> Tensor:
        """Return which of the training images with these labels (N,) are held out, int64, ascending."""
        return stratified_indices(labels, self.val_size, self.split_seed, self.val_fold)[1]

    def _loader(self, image_set: ImageSet | None, batch_size: int, **options: Any) -> BatchLoader:
        assert image_set is not None, "setup() runs before the loaders are made"
        rank, world_size, device = 0, 1, torch.device("cpu")
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            device = self.trainer.strategy.root_device
        images, labels = image_set.images.to(device), image_set.labels.to(device)
        return BatchLoader(images, labels, batch_size, rank=rank, world_size=world_size, **options)

    def train_dataloader(self) -> BatchLoader:
        """Return shuffled and augmented training batches, or those left of an interrupted epoch."""
        epochs = (self.trainer.max_epochs or 0) if self.trainer is not None else 0
        world_size, accumulate = 1, 1
        if self.trainer is not None:
            world_size = self.trainer.world_size
            callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
            if not any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
                accumulate = self.trainer.accumulate_grad_batches
            if self.images_per_step is not None:
                rank_zero_info(
                    f"Optimizer step: {self.images_per_step:,} images, in {accumulate} x {world_size} batches of "
                    f"{self.images_per_batch(world_size)}."
                )
        loader = self._loader(
            self.train,
            self.images_per_batch(world_size),
            accumulate=accumulate,
            augmentations=self.augmentations,
            sizes=stretch_over_epochs(self.image_sizes, epochs),
            shuffle=True,
            fixed=self.trainer is not None and self.trainer.overfit_batches > 0,  # type: ignore[attr-defined]
            seed=self.seed,
        )
        if self._progress:
            loader.resume(self._progress)
        self._train_loader = loader
        return loader

    @property
    def split(self) -> dict[str, Any]:
        """What determines the training images that are held out, once they are read."""
        assert self.train is not None
        options = {name: getattr(self, name) for name in ("val_size", "split_seed", "val_fold")}
        return {"fingerprint": self.train.fingerprint, **options}

    def check_split(self, trained: dict[str, Any]) -> None:
        """Check that the images held out are those that a network was not trained on.

        Args:
            trained: `split` of its training; empty if it is unknown.

        Raises:
            ValueError: if others are held out, with the options that differ.
        """
        if differing := [name for name, value in trained.items() if self.split[name] != value]:
            what = [
                "other images at `data.root`"
                if name == "fingerprint"
                else f"`data.{name}` {self.split[name]} in place of {trained[name]}"
                for name in differing
            ]
            raise ValueError(
                f"Expected the validation images that the network was not trained on, got {', '.join(what)}: it may "
                "have seen these. Use the data and the split that it was trained with."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the progress in the epoch, and how the images were split.

        (Lightning loses the state of a loader if the optimizer needs the length of the training.)
        """
        if self._train_loader is None:
            return {}
        return {"progress": self._train_loader.progress(), "split": self.split}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume inside the epoch of the checkpoint."""
        self._progress = state_dict.get("progress", state_dict)  # before 0.1, the state was the progress alone

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the held-out images as they are; no loader if `val_size` is 0."""
        return self._loader(self.val, self._eval_batch_size("val")) if self.val_size else []

    def test_dataloader(self) -> BatchLoader:
        """Return the test images as they are."""
        return self._loader(self.test, self._eval_batch_size("test"))

    def predict_dataloader(self) -> BatchLoader:
        """Return the test images as they are."""
        return self._loader(self.test, self._eval_batch_size("predict"))

    def _eval_batch_size(self, stage: Literal["val", "test", "predict"]) -> int:
        """Return `eval_batch_size`, or less if `limit_*_batches` is a share that would be less than one batch."""
        images = self.size("test" if stage == "predict" else stage)
        limit = getattr(self.trainer, f"limit_{stage}_batches", 1.0)
        share = limit if isinstance(limit, float) else 1.0
        return min(self.eval_batch_size, max(1, int(images * share)))

    def size(self, name: str) -> int:
        """Return the number of images of the split "train", "val" or "test", 0 if it was not read."""
        split = getattr(self, name)
        return 0 if split is None else len(split)

    def describe(self) -> dict[str, Any]:
        """Return source, fingerprints and sizes of the splits that were read, for `result.json`."""
        sizes = {name: n for name in ("train", "val", "test") if (n := self.size(name))}
        prints = {"fingerprint": self.train, "test_fingerprint": self.test}
        read = {name: split.fingerprint for name, split in prints.items() if split is not None}
        return {"source": self.source_name, **read, **sizes}


def data_of(trainer: Trainer) -> CIFAR10DataModule:
    """Return the data module of a trainer."""
    return cast(CIFAR10DataModule, trainer.datamodule)  # type: ignore[attr-defined]  # set when a stage starts
