"""The report of a run: every number in it equals one computed in another way."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from test_pages import Reader
from tiny import CNN, DATA, MLP

from cifar_lightning.__main__ import main
from cifar_lightning.analysis.calibration import fit_temperature, reliability
from cifar_lightning.analysis.confusion import class_scores
from cifar_lightning.pages import Picture, Section, Text
from cifar_lightning.report import sections
from cifar_lightning.report.examination import Examination
from cifar_lightning.runs import Run

FEW = ("--images", "6")
"""Drawing takes most of the time of a report."""


@pytest.fixture(scope="module")
def trained(once) -> Path:
    """A folder with a CNN that was tested, and an MLP that was not."""

    def train(folder: Path) -> None:
        place = ("--save_dir", str(folder), "--version", "v", "--figures.every_n_epochs=0")
        assert main(["fit", *DATA, *CNN, *place, "--layers.every_n_steps=5", "--test"]) == 0
        assert main(["fit", *DATA, *MLP, *place]) == 0

    return once("report", train)


@pytest.fixture
def runs(trained, tmp_path) -> Path:
    """The same runs, to write into."""
    return Path(shutil.copytree(trained, tmp_path / "lightning_logs"))


@pytest.mark.parametrize(("name", "split"), [("cnn", "test"), ("mlp", "val")])
def test_an_examination_equals_computations_of_another_kind(runs, name, split):
    found = Examination(Run(runs / name / "v"), split)
    data = found.image_set(split)
    assert torch.equal(found.images, data.images)
    with torch.no_grad():
        logits = torch.cat([found.model(image[None]) for image in data.images])
    torch.testing.assert_close(found.logits, logits, rtol=1e-4, atol=1e-4)
    predictions = found.predictions.numpy()
    np.testing.assert_array_equal(found.confusion, confusion_matrix(data.labels, predictions, labels=range(10)))
    scores = precision_recall_fscore_support(data.labels, predictions, labels=range(10), zero_division=0)
    np.testing.assert_allclose(np.array(class_scores(found.confusion)).T, scores)
    assert found.accuracy == pytest.approx((predictions == data.labels.numpy()).mean())
    # The temperature comes from validation images alone, and never from those that show what it gives.
    val = found.image_set("val")
    with torch.no_grad():
        held_out = found.model(val.images)
    fit, shown = (slice(None), slice(None)) if split == "test" else (slice(None, None, 2), slice(1, None, 2))
    temperature = fit_temperature(held_out[fit], val.labels[fit])
    assert found.calibration.temperature == pytest.approx(temperature, rel=1e-4)
    after = reliability((logits[shown] / temperature).softmax(1), data.labels[shown])
    assert found.calibration.after is not None
    assert found.calibration.after.error == pytest.approx(after.error, abs=1e-4)
    assert found.calibration.after.counts.sum() == len(data.labels[shown])


def test_probes_equal_scikit_learn_on_features_taken_by_hand(runs):
    found = Examination(Run(runs / "mlp/v"), "val")
    train, val = found.image_set("train"), found.image_set("val")
    with torch.no_grad():
        x, y = (found.model.net.features(found.model.normalize(part.images)).double() for part in (train, val))
    mean, std = x.mean(0), x.std(0, correction=0).clamp(min=1e-8)
    ridge = RidgeClassifier(alpha=0.01 * len(train.labels)).fit(((x - mean) / std).numpy(), train.labels)
    assert list(found.probes) == ["pixels", "hidden1"]
    assert found.probes["hidden1"] == pytest.approx(ridge.score(((y - mean) / std).numpy(), val.labels))


def test_layers_and_explanations_are_of_the_images_they_are_shown_with(runs):
    found = Examination(Run(runs / "cnn/v"), "test")
    assert (found.predictions[found.correct] == found.labels[found.correct]).all()
    assert len(found.correct) == round(found.accuracy * len(found.labels)) > 0
    rows = found.correct[:3]
    cam = found.grad_cam(rows)
    assert cam is not None
    assert found.saliency(rows).shape == cam.shape == (len(rows), 32, 32)
    torch.testing.assert_close(found.saliency(rows)[1:2], found.saliency(rows[1:2]), rtol=1e-3, atol=1e-6)
    layers = ["stage1.conv1", "stage1.conv2", "stage2.conv1", "stage2.conv2"]
    assert list(found.costs) == [*layers, "rest"]
    assert list(found.layer_shapes) == list(found.layer_statistics) == layers
    assert list(found.layer_features) == list(found.probes) == ["pixels", *layers]
    with torch.no_grad():
        features = found.net.features(found.inputs(found.embedded))
    torch.testing.assert_close(found.features, features)


def test_a_section_is_a_function_and_an_entry_of_a_list(runs, monkeypatch):
    def brightness(exam: Examination) -> Section:
        figure = Figure(figsize=(4, 3))
        figure.add_subplot().hist(exam.images.float().mean((1, 2, 3)))
        return Section("Brightness", [Text(f"Mean: {exam.images.float().mean():.1f}"), Picture("light", figure, "A.")])

    def sounds(exam: Examination) -> str:
        return "Sounds: images have none."

    monkeypatch.setattr(sections, "SECTIONS", [sounds, brightness, *sections.SECTIONS])
    assert main(["report", "--run", str(runs / "mlp/v"), *FEW]) == 0
    page = check_page(runs / "mlp/v/report")
    assert page.headings()[1:3] == ["Brightness", "Result"]
    assert page.headings()[-1] == "Left out"
    assert page.text.count("Sounds: images have none.") == 1
    assert (runs / "mlp/v/report/figures/light.png").exists()


def check_page(folder: Path) -> Reader:
    """What holds of every report."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Reader(text)
    images = page.all("img")
    assert images
    assert all(attributes["src"].startswith("data:image/png;base64,") for _, attributes in images)
    assert all(attributes["alt"] and attributes["width"] and attributes["height"] for _, attributes in images)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert not page.all("script")
    headings = [tag for tag, _ in page.all("h1", "h2", "h3")]
    assert headings[0] == "h1"
    assert set(headings[1:]) == {"h2"}
    ids = [attributes["id"] for _, attributes in page.all("h2")]
    assert [attributes["href"] for _, attributes in page.all("a")] == [f"#{name}" for name in ids]
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[.+?\]\((figures/[\w.]+?\.png)\)", markdown)
    assert len(pictures) == len(images)
    assert {path.name for path in (folder / "figures").iterdir()} == {Path(name).name for name in pictures}
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    return page


def test_a_report_of_a_tested_run_is_of_its_test_images(runs, capsys):
    assert main(["report", "--run", str(runs / "cnn/v"), *FEW]) == 0
    assert "Report: " in capsys.readouterr().err
    page = check_page(runs / "cnn/v/report")
    accuracy = Run(runs / "cnn/v").result["test"]["metrics"]["test/acc"]
    assert f"{100 * accuracy:.2f}" in page.text
    for words in (
        "200 test SYNTHETIC images",
        "say nothing about CIFAR-10",
        "stage2.conv2",
        "Grad-CAM",
        "gradient norm",
    ):
        assert words in page.text, words
    assert "class_path: cifar_lightning.models.CNNClassifier" in page.text
    table = (runs / "cnn/v/report/report.md").read_text().partition("share of the time, % |")[2].splitlines()[2:8]
    *layers, everything = [float(line.strip("| ").rpartition("|")[2]) for line in table if line.startswith("|")]
    assert sum(layers) == pytest.approx(100, abs=0.3) == everything


def test_a_report_of_an_untested_run_leaves_the_test_images_alone(runs, monkeypatch):
    import cifar_lightning.data.datamodule as datamodule

    original = datamodule.synthetic_images
    asked = []
    monkeypatch.setattr(datamodule, "synthetic_images", lambda part, *rest: asked.append(part) or original(part, *rest))
    assert main(["report", "--run", str(runs / "mlp/v"), *FEW]) == 0
    assert set(asked) == {"train"}
    page = check_page(runs / "mlp/v/report")
    shown = [attributes["alt"] for _, attributes in page.all("img") if attributes["alt"].startswith("Easiest")]
    assert [alt.endswith(": 6 images.") for alt in shown] == [True]
    assert "100 val SYNTHETIC images" in page.text
    assert page.text.count("Grad-CAM is left out") == 1


@pytest.mark.slow
def test_several_runs_stand_side_by_side(runs):
    arguments = ["--run", str(runs / "cnn/v"), "--run", str(runs / "mlp/v"), "--output", "both", *FEW]
    assert main(["report", *arguments]) == 0
    page = check_page(Path("both"))
    assert {"Results", "Accuracy and cost", "Training curves", "Calibration and linear probes"} <= set(page.headings())
    for name in ("cnn/v: Result", "mlp/v: Result"):
        assert name in page.headings()


@pytest.mark.slow
def test_a_run_without_held_out_images(runs, capsys):
    place = ["--save_dir", str(runs), "--version", "all"]
    assert main(["fit", *DATA, *MLP, *place, "--data.val_size=0", "--trainer.max_epochs=1"]) == 0
    assert main(["report", "--run", str(runs / "mlp/all")]) == 2
    error = capsys.readouterr().err
    assert "`data.val_size: 0`" in error
    assert not (runs / "mlp/all/report").exists()
    assert main(["report", "--run", str(runs / "mlp/all"), "--split", "test", *FEW]) == 0
    assert "Temperature scaling needs held-out images" in check_page(runs / "mlp/all/report").text


@pytest.mark.parametrize("missing", ["folder", "config.yaml", "checkpoints"])
def test_what_is_no_run_is_one_message(runs, capsys, missing):
    run = runs / "cnn/v"
    if missing == "config.yaml":
        (run / missing).unlink()
    else:
        shutil.rmtree(run if missing == "folder" else run / missing)
    assert main(["report", "--run", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Expected")
    assert "Traceback" not in error


def test_a_gallery_without_images(runs, capsys):
    assert main(["report", "--run", str(runs / "mlp/v"), "--images", "0"]) == 2
    assert "Expected `--images` to be at least 1, got 0." in capsys.readouterr().err


def test_a_history_that_is_no_table_of_numbers(runs, capsys):
    (runs / "cnn/v/metrics.csv").write_text("epoch,train/acc\n0,many\n")
    assert main(["report", "--run", str(runs / "cnn/v")]) == 2
    assert "Expected numbers in" in capsys.readouterr().err


def test_a_class_without_images_scores_zero():
    matrix = torch.zeros(10, 10, dtype=torch.long)
    matrix[0, 0], matrix[0, 1], matrix[2, 0] = 3, 1, 2
    assert class_scores(matrix) == [
        pytest.approx((3 / 5, 3 / 4, 2 / 3, 4)),
        (0.0, 0.0, 0.0, 0),
        (0.0, 0.0, 0.0, 2),
        *[(0.0, 0.0, 0.0, 0)] * 7,
    ]
