"""What a run leaves for TensorBoard, read back from its event files."""

import math

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tiny import CNN, DRAWING, fit

from cifar_lightning import CLASSES
from cifar_lightning.analysis.figures import FIGURES
from cifar_lightning.callbacks.records import table_row


@pytest.fixture(scope="module")
def run(drawn):
    return drawn / "cnn/v"


@pytest.fixture(scope="module")
def events(run):
    accumulator = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_scalars_by_step_and_by_epoch(events):
    scalars = set(events.Tags()["scalars"])
    expected = {f"{split}/{name}" for split in ("train", "val") for name in ("acc", "loss", "f1", "ece")}
    assert scalars >= expected | {"step/loss", "step/lr", "train/images_per_second", "test/acc", "val/class_acc/cat"}
    assert len(events.Scalars("step/loss")) == 10
    assert len(events.Scalars("val/acc")) == 2
    assert len(events.Scalars("step/lr")) == 10
    assert "epoch" not in scalars


def test_figures(events):
    images = events.Tags()["images"]
    assert set(images) == {f"{split}/{name}" for split in ("val", "test") for name in FIGURES}
    assert len(events.Images("val/confusion")) == 2  # one each validation
    assert all(image.encoded_image_string.startswith(b"\x89PNG") for image in events.Images("val/confusion"))


def test_figures_of_the_test_images_are_files_as_well(run):
    assert {path.name for path in (run / "figures").iterdir()} == {f"test_{name}.png" for name in FIGURES}


def test_features_with_their_pictures_and_classes(run):
    config = (run / "projector_config.pbtxt").read_text()
    assert "penultimate_features" in config
    (folder,) = (path.parent for path in run.rglob("metadata.tsv"))
    names = (folder / "metadata.tsv").read_text().split()
    rows = (folder / "tensors.tsv").read_text().splitlines()
    assert len(names) == len(rows) == 100
    assert set(names) <= set(CLASSES)
    assert len(rows[0].split()) == 8
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (10 * 32, 10 * 32)


def test_no_features_are_no_folder():
    run = fit(*CNN, *DRAWING, "--figures.show=[confusion]")
    assert not list(run.rglob("metadata.tsv"))


def test_graph_and_configuration(events):
    assert events.Tags()["graph"]
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "class_path: cifar_lightning.models.CNNClassifier" in text
    assert "max_epochs: 2" in text


def test_hparams_end_in_final_metrics(events):
    for tag in ("hp/val/acc", "hp/train/loss", "hp/test/acc", "hp/test/ece", "hp/fit_seconds"):
        assert math.isfinite(events.Scalars(tag)[-1].value), tag
    best = max(point.value for point in events.Scalars("val/acc"))
    assert [point.value for point in events.Scalars("hp/val/acc")] == [pytest.approx(best)]
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["model.net.widths"].string_value == "[8, 8]"
    assert start.hparams["model.optimizer.lr"].number_value == pytest.approx(0.1)
    assert start.hparams["params"].number_value > 0


def test_hyperparameters_are_numbers_and_texts():
    tree = {
        "model": {"class_path": "some.A", "init_args": {"widths": [1, 2], "flag": True}},
        "seed": 3,
        "x": None,
        "data": {"root": "/r"},
    }
    assert table_row(tree) == {
        "model": "A",
        "model.widths": "[1, 2]",
        "model.flag": "True",
        "seed": 3,
    }
