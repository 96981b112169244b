from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from trees import write_class_folders

from cifar_lightning.data import datamodule, synthetic
from cifar_lightning.data.augment import Augmentation
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.folders import ClassFolders
from cifar_lightning.data.sources import default_root
from cifar_lightning.models import MLP, MLPClassifier

SIZES = {"val_size": 20, "batch_size": 16, "eval_batch_size": 7}


@pytest.fixture
def root(tmp_path) -> Path:
    """Return class folders of 60 training and 20 test images."""
    write_class_folders(tmp_path / "root", train_per_class=6, test_per_class=2)
    return tmp_path / "root"


@pytest.fixture
def splits_read(monkeypatch) -> dict[str, list[str]]:
    """Return the splits that are loaded, and those that are decoded, in order."""
    read: dict[str, list[str]] = {"loaded": [], "decoded": []}
    load, decode = datamodule.load_images, ClassFolders.decode

    def load_noted(source, split, root):
        read["loaded"].append(split)
        return load(source, split, root)

    def decode_noted(self, split):
        read["decoded"].append(split)
        return decode(self, split)

    monkeypatch.setattr(datamodule, "load_images", load_noted)
    monkeypatch.setattr(ClassFolders, "decode", decode_noted)
    return read


@pytest.fixture
def log(caplog, monkeypatch):
    # If the command line ran before in this process, it has stopped the propagation of the project's log messages.
    monkeypatch.setattr(logging.getLogger("cifar_lightning"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


def synthetic_data(**options) -> CIFAR10DataModule:
    sizes = {"synthetic_train": 60, "synthetic_test": 20, **SIZES}
    return CIFAR10DataModule(source="synthetic", **{**sizes, **options})


# The test split.


def test_training_and_validation_never_read_the_test_images(make_trainer, root, splits_read):
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"no image")  # reading one fails
    data, model = CIFAR10DataModule(str(root), **SIZES), MLPClassifier(MLP([4]))
    trainer = make_trainer(max_epochs=2)
    trainer.fit(model, data)
    trainer.validate(model, data, verbose=False)
    assert splits_read == {"loaded": ["train"], "decoded": ["train"]}
    assert data.test is None
    assert data.describe().keys() == {"source", "fingerprint", "train", "val"}
    with pytest.raises(ValueError, match="20 of 20 that are not"):
        trainer.test(model, data, verbose=False)


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_evaluation_reads_the_test_images_alone(make_trainer, root, splits_read, stage):
    data = CIFAR10DataModule(str(root), **SIZES)
    getattr(make_trainer(), stage)(MLPClassifier(MLP([4])), data)
    assert splits_read == {"loaded": ["test"], "decoded": ["test"]}
    assert data.train is data.val is None
    assert len(data.test) == 20


def test_without_a_trainer_both_splits_are_prepared(root, splits_read):
    data = CIFAR10DataModule(str(root), **SIZES)
    data.prepare_data()
    assert sorted(splits_read["decoded"]) == ["test", "train"]
    data.setup("fit")
    data.setup("test")
    assert len(splits_read["loaded"]) == 2


def test_images_are_read_once_however_many_stages_follow(make_trainer, root, splits_read):
    data, model = CIFAR10DataModule(str(root), **SIZES), MLPClassifier(MLP([4]))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, data)
    first = data.train
    for stage in ("validate", "test", "test", "fit"):
        getattr(trainer, stage)(model, data)
    assert splits_read["loaded"] == ["train", "test"]
    assert data.train is first
    assert "train" not in data._read  # held once, by the two splits


# The splits.


def test_the_splits_share_the_training_images(root):
    data = CIFAR10DataModule(str(root), **SIZES)
    data.setup("fit")
    assert (len(data.train), len(data.val)) == (40, 20)
    assert torch.bincount(data.train.labels).tolist() == [4] * 10
    assert torch.bincount(data.val.labels).tolist() == [2] * 10
    whole = {image.numpy().tobytes() for image in ClassFolders(root).decode("train").images}
    train, val = ({image.numpy().tobytes() for image in split.images} for split in (data.train, data.val))
    assert len(whole) == 60
    assert train | val == whole
    assert not train & val


def test_the_seed_of_the_run_does_not_change_the_split(root):
    first, same, other = (
        CIFAR10DataModule(str(root), **SIZES, **seeds) for seeds in ({"seed": 0}, {"seed": 1}, {"split_seed": 1})
    )
    for data in (first, same, other):
        data.setup("fit")
    assert torch.equal(first.val.images, same.val.images)
    assert not torch.equal(first.val.images, other.val.images)


def test_a_smaller_training_set_is_part_of_the_whole_and_balanced(root):
    data, whole = (CIFAR10DataModule(str(root), **SIZES, train_size=size) for size in (10, None))
    data.setup("fit")
    whole.setup("fit")
    assert torch.bincount(data.train.labels).tolist() == [1] * 10
    available = {image.numpy().tobytes() for image in whole.train.images}
    assert {image.numpy().tobytes() for image in data.train.images} < available
    assert torch.equal(data.val.images, whole.val.images)


@pytest.mark.parametrize("train_size", [40, 41, 10_000])
def test_more_training_images_than_there_are_means_all(root, train_size):
    data = CIFAR10DataModule(str(root), **SIZES, train_size=train_size)
    data.setup("fit")
    assert len(data.train) == 40


def test_a_validation_split_of_all_images(root):
    data = CIFAR10DataModule(str(root), val_size=60)
    with pytest.raises(ValueError, match=r"`data\.val_size` .* less than the 60 training images, got 60"):
        data.setup("fit")


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")  # as intended
def test_without_a_validation_split_there_is_no_loader(make_trainer, root):
    data = CIFAR10DataModule(str(root), val_size=0, batch_size=16)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(MLPClassifier(MLP([4])), data)
    assert data.val_dataloader() == []
    assert len(data.train) == 60
    assert not any(name.startswith("val/") for name in trainer.callback_metrics)
    assert "train/acc" in trainer.callback_metrics
    assert data.describe() == {"source": "class folders", "fingerprint": data.train.fingerprint, "train": 60}


# The loaders.


def test_only_training_images_are_augmented(make_trainer, root):
    class Record(Callback):
        def __init__(self):
            self.train, self.val = [], []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.train.append(batch)

        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.val.append(batch)

    record = Record()
    data = CIFAR10DataModule(str(root), **SIZES, cutout_px=8)
    make_trainer(max_epochs=1, callbacks=[record]).fit(MLPClassifier(MLP([4])), data)
    assert torch.equal(torch.cat([batch.images for batch in record.val]), data.val.images)
    assert torch.equal(torch.cat([batch.labels for batch in record.val]), data.val.labels)
    assert [len(batch.labels) for batch in record.val] == [6, 7, 7]
    indices = torch.cat([batch.indices for batch in record.train])
    assert sorted(indices.tolist()) == list(range(40))
    assert indices.tolist() != list(range(40))
    images = torch.cat([batch.images for batch in record.train])
    assert all(not torch.equal(image, data.train.images[i]) for image, i in zip(images, indices, strict=True))


class Invert(Augmentation):
    """Invert the colours of some images: an augmentation of a user's own."""

    def __init__(self, share: float = 0.1) -> None:
        self.share = share

    def draw(self, indices: torch.Tensor, rng: torch.Generator, epoch: int) -> torch.Tensor:
        return torch.rand(len(indices), generator=rng) < self.share

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return torch.where(drawn[:, None, None, None], 255 - images, images)


def test_an_augmentation_of_ones_own_is_one_class(make_trainer, root):
    class Record(Callback):
        def __init__(self):
            self.train, self.val = [], []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.train.append(batch)

        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.val.append(batch)

    def train(**options) -> tuple[torch.Tensor, torch.Tensor, CIFAR10DataModule]:
        record, data = Record(), CIFAR10DataModule(str(root), **SIZES, cutout_px=8, seed=2, **options)
        make_trainer(max_epochs=2, callbacks=[record]).fit(MLPClassifier(MLP([4])), data)
        assert all(torch.equal(b.images, data.val.images[b.indices]) for b in record.val)
        return *(torch.cat(column) for column in list(zip(*record.train, strict=True))[::2]), data

    plain, order, _ = train()
    images, same_order, data = train(augmentations=[Invert(0.5)])
    again, _, _ = train(augmentations=[Invert(0.5)])
    assert torch.equal(order, same_order)
    assert torch.equal(images, again)
    inverted = (images == 255 - plain).flatten(1).all(1)
    assert (images == plain).flatten(1).all(1)[~inverted].all()  # the other augmentations draw the same
    first, second = inverted.view(2, 40)
    assert 10 < first.sum() < 30
    assert not torch.equal(first, second)
    alone = CIFAR10DataModule(str(root), **SIZES, flip=False, translate_px=0, seed=2, augmentations=[Invert(0.5)])
    alone.setup("fit")
    loader = alone.train_dataloader()
    indices, seen = (torch.cat([getattr(batch, name) for batch in loader]) for name in ("indices", "images"))
    assert torch.equal((seen == 255 - alone.train.images[indices]).flatten(1).all(1), first)
    assert data.augmentations[1].share == 0.5


def test_test_images_are_not_augmented(root):
    data = CIFAR10DataModule(str(root), **SIZES)
    data.setup("test")
    expected = ClassFolders(root).decode("test")
    for loader in (data.test_dataloader(), data.predict_dataloader()):
        assert torch.equal(torch.cat([batch.images for batch in loader]), expected.images)
        assert torch.equal(torch.cat([batch.labels for batch in loader]), expected.labels)


def test_augmentation_can_be_turned_off_and_its_seed_set(root):
    def epoch(**options) -> list[torch.Tensor]:
        data = CIFAR10DataModule(str(root), **SIZES, **options)
        data.setup("fit")
        batches = list(data.train_dataloader())
        indices = torch.cat([batch.indices for batch in batches])
        return [indices, torch.cat([batch.images for batch in batches]), data.train.images[indices]]

    _, images, originals = epoch(flip=False, translate_px=0)
    assert torch.equal(images, originals)
    for options in ({"translate_px": 0}, {"flip": False}, {"flip": False, "translate_px": 0, "cutout_px": 4}):
        _, images, originals = epoch(**options)
        assert not torch.equal(images, originals)
    same, again, other = epoch(seed=3), epoch(seed=3), epoch(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(same, again, strict=True))
    assert not torch.equal(same[0], other[0])


def test_batch_sizes(root):
    data = CIFAR10DataModule(str(root), val_size=20, batch_size=20, eval_batch_size=5)
    data.setup("fit")
    data.setup("test")
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    assert [[len(batch.labels) for batch in loader] for loader in loaders] == [[20, 20], [5] * 4, [5] * 4]


# The source of the data.


def test_synthetic_images_are_logged(log):
    data = synthetic_data()
    assert data.is_synthetic
    data.setup("fit")
    (record,) = log.records
    assert record.levelno == logging.WARNING
    assert "SYNTHETIC" in record.message
    assert "not CIFAR-10" in record.message
    assert data.describe()["source"] == "synthetic"


def test_real_images_do_not(log, root):
    data = CIFAR10DataModule(str(root), **SIZES)
    assert not data.is_synthetic
    data.setup("fit")
    assert "SYNTHETIC" not in log.text
    assert data.describe()["source"] == "class folders"


def test_synthetic_images_are_those_of_the_split_seed():
    data = synthetic_data(split_seed=5, seed=9)
    data.setup("fit")
    data.setup("test")
    expected = synthetic.synthetic_images("train", 60, 5)
    assert data.train.fingerprint == data.val.fingerprint == expected.fingerprint
    assert data.test.fingerprint == synthetic.synthetic_images("test", 20, 5).fingerprint
    assert (len(data.train), len(data.val), len(data.test)) == (40, 20, 20)


def test_a_description_holds_what_was_read(root):
    data = CIFAR10DataModule(str(root), **SIZES)
    assert data.describe() == {"source": ""}
    data.setup("test")
    test_fingerprint = ClassFolders(root).decode("test").fingerprint
    assert data.describe() == {"source": "class folders", "test_fingerprint": test_fingerprint, "test": 20}
    data.setup("fit")
    fingerprint = ClassFolders(root).decode("train").fingerprint
    prints = {"fingerprint": fingerprint, "test_fingerprint": test_fingerprint}
    expected = {"source": "class folders", **prints, "train": 40, "val": 20, "test": 20}
    assert data.describe() == expected
    assert [data.size(name) for name in ("train", "val", "test")] == [40, 20, 20]


def test_no_data_is_an_error_that_names_the_alternatives(make_trainer, tmp_path):
    with pytest.raises(ValueError, match=r"Expected `data\.root` to hold CIFAR-10[\s\S]*--data\.source synthetic"):
        make_trainer(max_epochs=1).fit(MLPClassifier(MLP([4])), CIFAR10DataModule(str(tmp_path / "none")))


def test_the_root_is_the_argument_or_the_variable_or_data(monkeypatch):
    assert default_root() == CIFAR10DataModule().root == Path("data")
    monkeypatch.setenv("CIFAR10_ROOT", "/elsewhere")
    assert default_root() == CIFAR10DataModule().root == Path("/elsewhere")
    assert CIFAR10DataModule("/given").root == Path("/given")
    monkeypatch.setenv("CIFAR10_ROOT", "")
    assert default_root() == Path("data")


# Arguments.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "Expected `data.batch_size` to be at least 1 image, got 0."),
        ({"eval_batch_size": -5}, "Expected `data.eval_batch_size` to be at least 1 image, got -5."),
        ({"val_size": -1}, "Expected `data.val_size` to be at least 0 images, got -1."),
        ({"train_size": 0}, "Expected `data.train_size` to be at least 1 image or null, got 0."),
        ({"translate_px": 32}, "Expected `data.translate_px` in [0, 31] pixels, got 32."),
        ({"cutout_px": 33}, "Expected `data.cutout_px` in [0, 32] pixels, got 33."),
    ],
)
def test_messages(options, message):
    with pytest.raises(ValueError, match="Expected") as caught:
        CIFAR10DataModule(**options)
    assert str(caught.value) == message


def test_all_problems_come_in_one_message():
    options = {
        "batch_size": 0,
        "eval_batch_size": 0,
        "val_size": -1,
        "train_size": 0,
        "translate_px": -1,
        "cutout_px": -1,
    }
    with pytest.raises(ValueError, match="Expected") as caught:
        CIFAR10DataModule(**options)
    assert str(caught.value).count("Expected") == len(options)
    for name in options:
        assert str(caught.value).count(f"`data.{name}`") == 1


@pytest.mark.slow
def test_the_real_images_are_split_evenly(real_root):
    data = CIFAR10DataModule(str(real_root))
    data.setup("fit")
    data.setup("test")
    assert torch.bincount(data.train.labels).tolist() == [4500] * 10
    assert torch.bincount(data.val.labels).tolist() == [500] * 10
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
