from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import Callback

from cifar_lightning.data.augment import Augmentation, StandardAugmentation
from cifar_lightning.data.loader import Batch, BatchLoader, batch_bounds, stretch_over_epochs
from cifar_lightning.models import MLP, MLPClassifier


class Darken(Augmentation):
    """An augmentation that is not built in."""

    def draw(self, indices: torch.Tensor, rng: torch.Generator, epoch: int) -> dict[str, torch.Tensor]:
        return {"divisor": torch.randint(1, 4, (len(indices), 1, 1, 1), dtype=torch.uint8, generator=rng)}

    def apply(self, images: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        return images // drawn["divisor"]


ALL = [StandardAugmentation(flip=True, translate_px=3, cutout_px=6), Darken()]


def random_split(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 10, (n,), generator=generator)


def epoch_of(n: int, epoch: int, batch_size: int, world_size: int, seed: int = 0) -> dict[int, torch.Tensor]:
    """Return the augmented images of an epoch by their index, from all processes."""
    images, labels = random_split(n)
    seen = {}
    for rank in range(world_size):
        loader = BatchLoader(
            images,
            labels,
            batch_size,
            augmentations=ALL,
            shuffle=True,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        loader.set_epoch(epoch)
        for batch in loader:
            assert torch.equal(batch.labels, labels[batch.indices])
            for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
                assert index not in seen
                seen[index] = image
    return seen


def same(a: dict[int, torch.Tensor], b: dict[int, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[i], b[i]) for i in a)


@given(n=st.integers(1, 300), batch_size=st.integers(1, 70), world_size=st.integers(1, 9), accumulate=st.integers(1, 4))
def test_bounds_divide_the_samples_evenly(n, batch_size, world_size, accumulate):
    parts = world_size * accumulate
    if n < parts:
        what = f"each of the {world_size} processes" if accumulate == 1 else f"each of the {parts} batches of a step"
        with pytest.raises(ValueError, match=f"one image for {what}, got {n} images"):
            batch_bounds(n, batch_size, 0, world_size, accumulate)
        return
    ranks = [batch_bounds(n, batch_size, rank, world_size, accumulate) for rank in range(world_size)]
    (batches,) = {len(bounds) for bounds in ranks}
    assert batches % accumulate == 0
    assert batches // accumulate <= -(-n // (batch_size * parts))
    assert sorted(i for bounds in ranks for batch in bounds for i in range(batch.first, batch.last)) == list(range(n))
    sizes = [batch.last - batch.first for bounds in ranks for batch in bounds]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    # One image per batch is impossible if the last step would leave a batch without an image.
    assert max(sizes) <= (2 if batch_size == 1 and n % parts else batch_size)
    for start in range(0, batches, accumulate):
        step = [batch for bounds in ranks for batch in bounds[start : start + accumulate]]
        images = sum(batch.last - batch.first for batch in step)
        for batch in step:  # each image counts for 1 / images in the mean over the batches
            assert batch.weight / parts / (batch.last - batch.first) == pytest.approx(1 / images)


@pytest.mark.parametrize(
    ("n", "batch_size", "world_size"),
    [(1, 1, 1), (10, 3, 1), (10, 100, 1), (23, 4, 3), (5, 1, 2), (64, 8, 8), (9, 5, 9)],
)
def test_every_sample_appears_exactly_once_per_epoch(n, batch_size, world_size):
    assert sorted(epoch_of(n, 0, batch_size, world_size)) == list(range(n))


def test_length_is_the_number_of_batches():
    images, labels = random_split(23)
    for batch_size in (1, 7, 23, 50):
        loader = BatchLoader(images, labels, batch_size)
        assert len(loader) == len(list(loader)) == -(-23 // batch_size)


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (7, 1), (40, 1), (5, 2), (3, 4), (100, 3)])
def test_an_epoch_depends_neither_on_batch_size_nor_on_processes(batch_size, world_size):
    assert same(epoch_of(40, 3, batch_size, world_size), epoch_of(40, 3, 16, 1))


def test_epochs_differ_and_repeat():
    images, labels = random_split(30)

    def order(epoch: int, seed: int) -> list[int]:
        loader = BatchLoader(images, labels, 8, shuffle=True, seed=seed)
        loader.set_epoch(epoch)
        return torch.cat([batch.indices for batch in loader]).tolist()

    orders = [order(epoch, seed) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(found) for found in orders}) == 4
    assert list(range(30)) not in orders
    assert [order(epoch, seed) for seed in (0, 1) for epoch in (0, 1)] == orders
    assert same(epoch_of(30, 1, 8, 1), epoch_of(30, 1, 8, 1))
    assert not same(epoch_of(30, 0, 8, 1), epoch_of(30, 1, 8, 1))
    assert not same(epoch_of(30, 0, 8, 1, seed=0), epoch_of(30, 0, 8, 1, seed=1))


def test_the_augmentation_of_an_image_changes_with_the_epoch_and_the_seed():
    images, labels = random_split(12)
    epochs = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        loader = BatchLoader(images, labels, 5, augmentations=ALL, seed=seed)  # in the same order each time
        loader.set_epoch(epoch)
        epochs.append(torch.cat([batch.images for batch in loader]))
    for i, first in enumerate(epochs):
        assert all((first != other).flatten(1).any(1).sum() > 9 for other in epochs[:i])


def test_an_iteration_draws_from_no_global_generator():
    images, labels = random_split(20)
    before = torch.get_rng_state()
    list(BatchLoader(images, labels, 8, augmentations=ALL, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_neither_shuffles_nor_augments():
    images, labels = random_split(20)
    loader = BatchLoader(images, labels, 6)
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert torch.equal(torch.cat([batch.indices for batch in batches]), torch.arange(20))
        assert torch.equal(torch.cat([batch.images for batch in batches]), images)
        assert torch.equal(torch.cat([batch.labels for batch in batches]), labels)


def test_augmenting_does_not_change_the_data():
    images, labels = random_split(20)
    before = images.clone()
    for batch in BatchLoader(images, labels, 6, augmentations=ALL):
        batch.images.zero_()
    assert torch.equal(images, before)


def test_fewer_images_than_processes():
    images, labels = random_split(3)
    with pytest.raises(ValueError, match="at least one image for each of the 4 processes, got 3 images"):
        BatchLoader(images, labels, 8, world_size=4)


def test_lightning_finds_set_epoch():
    loader = BatchLoader(*random_split(4), 2)
    _set_sampler_epoch(loader, 5)
    assert loader.epoch == 5


def test_lightning_sets_the_epoch_before_each(make_trainer):
    images, labels = random_split(20)
    loader = BatchLoader(images, labels, 6, shuffle=True, seed=3)
    seen = []

    class Record(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(batch.indices)

    make_trainer(max_epochs=3, callbacks=[Record()]).fit(
        MLPClassifier(MLP([4])), loader, BatchLoader(images, labels, 20)
    )
    assert len(seen) == 12
    for epoch in range(3):
        loader.set_epoch(epoch)
        expected = [batch.indices for batch in loader]
        assert all(torch.equal(a, b) for a, b in zip(seen[4 * epoch : 4 * epoch + 4], expected, strict=True))


def test_each_epoch_has_its_size():
    images, labels = random_split(10)
    loader = BatchLoader(images, labels, 4, augmentations=ALL, sizes=[16, 24])
    for epoch, size in ((0, 16), (1, 24), (2, 24)):
        loader.set_epoch(epoch)
        assert {tuple(batch.images.shape[1:]) for batch in loader} == {(3, size, size)}


def test_alternating_flips_show_both_sides_of_every_image_in_two_epochs():
    images, labels = random_split(60)
    loader = BatchLoader(images, labels, 16, augmentations=[StandardAugmentation("alternating")], shuffle=True)
    flipped = torch.zeros(2, 60, dtype=torch.bool)
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        for batch in loader:
            flipped[epoch, batch.indices] = (batch.images != images[batch.indices]).flatten(1).any(1)
    assert (flipped[0] ^ flipped[1]).all()


def test_values_are_stretched_from_the_first_epoch_to_the_last():
    assert stretch_over_epochs([20, 24, 28, 32], 4) == [20, 24, 28, 32]
    assert stretch_over_epochs([20, 32], 5) == [20, 20, 20, 32, 32]  # the middle rounds to the even index
    assert stretch_over_epochs([20, 24, 32], 2) == [20, 32]
    assert stretch_over_epochs([20, 24, 32], 1) == [32]
    assert stretch_over_epochs([20, 24], -1) == [20, 24]
    assert stretch_over_epochs([], 3) == []


class OneBatch:
    """A custom loader."""

    def __init__(self, batch: object) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self):
        yield self.batch


PIXELS = torch.zeros(6, 3, 32, 32, dtype=torch.uint8)
LABELS = torch.arange(6)


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([PIXELS, LABELS], "it is a list, not a cifar_lightning.data.loader.Batch"),
        (Batch(PIXELS, LABELS.tolist(), LABELS), "labels are not tensors"),
        (Batch(PIXELS.float(), LABELS, LABELS), "images are torch.float32 (6, 3, 32, 32), not torch.uint8 (B, 3,"),
        (Batch(PIXELS[:5], LABELS, LABELS), "the numbers differ: (5,) images, (6,) labels, (6,) indices"),
        (Batch(PIXELS.flatten(1), LABELS, LABELS), "images are torch.uint8 (6, 3072), not torch.uint8 (B, 3,"),
        (Batch(PIXELS, LABELS + 5, LABELS), "labels go from 5 to 10, not from 0 to 9"),
        (Batch(PIXELS, LABELS - 1, LABELS), "labels go from -1 to 4, not from 0 to 9"),
        (Batch(PIXELS, LABELS.float(), LABELS), "labels are torch.float32 (6,), not torch.int64 (B,)"),
        (Batch(PIXELS[:1], LABELS[0], LABELS[:1]), "labels are torch.int64 (), not torch.int64 (B,)"),
        (Batch(PIXELS, LABELS, LABELS[:3]), "the numbers differ: (6,) images, (6,) labels, (3,) indices"),
    ],
)
def test_wrong_batches_are_caught_before_the_first_step(make_trainer, data, monkeypatch, stage, batch, message):
    loader = "train" if stage == "fit" else stage.replace("validate", "val")
    monkeypatch.setattr(data, f"{loader}_dataloader", lambda: OneBatch(batch))
    model, trainer = MLPClassifier(MLP([4])), make_trainer(max_epochs=1)
    with pytest.raises(ValueError, match="Expected the data loader to yield batches of CIFAR-10") as caught:
        getattr(trainer, stage)(model, data)
    assert message in str(caught.value)
    assert trainer.global_step == 0


def test_wrong_batches_to_validate_on_are_caught_as_well(make_trainer, data, monkeypatch):
    monkeypatch.setattr(data, "val_dataloader", lambda: OneBatch(Batch(PIXELS, LABELS + 5, LABELS)))
    with pytest.raises(ValueError, match="labels go from 5 to 10"):
        make_trainer(max_epochs=1).fit(MLPClassifier(MLP([4])), data)
