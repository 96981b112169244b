"""Loggers beside TensorBoard's: what arrives, read back from their own offline files."""

from __future__ import annotations

import importlib
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from tiny import CNN, DATA, fit

from cifar_lightning.__main__ import main
from cifar_lightning.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")]

SHOWN = ("--figures.every_n_epochs=1", "--figures.show=[confusion]", "--layers.every_n_steps=5")
CURVES = {"step/loss", "step/lr", "train/acc", "val/acc", "val/class_acc/cat", "step/gradient_norm"}


def overlay_option(name: str) -> str:
    return f"--config=configs/overlays/{name}.yaml"


def wandb_records(file: Path) -> Iterator:
    """Yields what a .wandb file holds: chunks of a LevelDB log, in blocks of 32 KiB, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32_768 - at % 32_768 < 7:
            at += 32_768 - at % 32_768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(record)
            record = b""


def wandb_content() -> tuple[set[tuple[str, str]], dict[str, dict], dict[str, Any], list[tuple]]:
    """Returns identifiers and names, the values of each tag by step, the configuration, and what weights there are."""
    runs, rows, config, artifacts = set(), {}, {}, []
    files = sorted(Path("lightning_logs/wandb").glob("offline-run-*/*.wandb"))
    for record in (record for file in files for record in wandb_records(file)):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            runs.add((record.run.run_id, record.run.display_name))
        elif kind == "config":
            config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "history":
            row = {"/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for tag, value in row.items():
                rows.setdefault(tag, {})[row.get("trainer/global_step")] = value
        elif kind == "artifact":
            paths = [entry.path for entry in record.artifact.manifest.contents]
            artifacts.append((record.artifact.type, list(record.artifact.aliases), paths))
    return runs, rows, config, artifacts


@pytest.fixture(autouse=True)
def _fresh_wandb(tmp_path, monkeypatch):
    """Keeps it away from the home folder, and ends what it remembers of this test."""
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def train(overlay: str, *options: str) -> Path:
    """Trains with an overlay and returns the run folder."""
    assert main(["fit", *DATA, *CNN, *options, overlay_option(overlay), "--version=v"]) == 0
    return Path("lightning_logs/cnn/v")


def test_weights_and_biases_has_curves_configuration_figures_and_weights():
    run = train("wandb", *SHOWN, "--test")
    identifiers, rows, config, artifacts = wandb_content()
    identifier = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["logger"]["init_args"]["id"]
    assert {found for found, _ in identifiers} == {identifier}  # the test is part of the run
    assert "cnn/v" in {name for _, name in identifiers}
    assert {tag.removesuffix("/_type") for tag in rows} >= CURVES | {"test/acc", "val/confusion", "test/confusion"}
    result = Run(run).result
    assert list(rows["val/acc"].values())[-1] == pytest.approx(result["fit"]["metrics"]["val/acc"])
    assert list(rows["test/acc"].values()) == [pytest.approx(result["test"]["metrics"]["test/acc"])]
    assert config["model.net.widths"] == "[8, 8]"
    pictures = [*Path("lightning_logs/wandb").rglob("*.png")]
    assert sorted(path.parent.name for path in pictures) == ["test", "val", "val"]
    with Image.open(pictures[0]) as picture:
        assert picture.size[0] > 300
    ((kind, aliases, (file,)),) = artifacts
    assert (kind, "best" in aliases, file) == ("model", True, "best.ckpt")


def test_a_continued_training_is_the_same_run_of_weights_and_biases():
    run = train("wandb", "--trainer.max_epochs=1", "--data.val_size=0")
    assert main(["fit", "--run", str(run), "--trainer.max_epochs=2"]) == 0
    identifiers, rows, _, artifacts = wandb_content()
    assert len({found for found, _ in identifiers}) == 1
    assert len(rows["train/acc"]) == 2
    assert [files for *_, files in artifacts] == 2 * [["last.ckpt"]]


def test_a_new_run_with_the_configuration_of_another_is_logged_as_a_new_one():
    run = train("wandb", "--trainer.max_epochs=1")
    assert main(["fit", "--config", str(run / "config.yaml"), "--version=again"]) == 0
    identifiers = {found for found, _ in wandb_content()[0]}
    assert len(identifiers) == 2
    first = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["logger"]["init_args"]["id"]
    options = ["--version=third", f"--trainer.logger.id={first}"]
    assert main(["fit", "--config", str(run / "config.yaml"), *options]) == 0
    assert {found for found, _ in wandb_content()[0]} == identifiers


def test_mlflow_has_curves_configuration_figures_and_weights():
    run = train("mlflow", *SHOWN, "--trainer.max_epochs=1")
    assert main(["fit", "--run", str(run), "--trainer.max_epochs=2", "--test"]) == 0
    client = importlib.import_module("mlflow.tracking").MlflowClient("sqlite:///lightning_logs/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("cifar_lightning").experiment_id])
    identifier = found.info.run_id
    assert (found.info.run_name, found.info.status) == ("cnn/v", "FINISHED")
    assert found.data.metrics.keys() >= CURVES | {"test/acc"}
    assert found.data.metrics["test/acc"] == pytest.approx(Run(run).result["test"]["metrics"]["test/acc"])
    assert len(client.get_metric_history(identifier, "val/acc")) == 2
    assert found.data.params["model.net.widths"] == "[8, 8]"
    pictures = [entry.path for entry in client.list_artifacts(identifier, "images") if entry.path.endswith(".png")]
    assert sorted(path.split("+")[0] for path in pictures) == ["images/test~confusion", *2 * ["images/val~confusion"]]
    assert [entry.path for entry in client.list_artifacts(identifier, "checkpoints")] == ["checkpoints/best.ckpt"]


def test_a_csv_logger_has_the_configuration():
    run = fit(*CNN, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv")
    (file,) = Path("csv").rglob("hparams.yaml")
    assert yaml.safe_load(file.read_text())["model.net.widths"] == "[8, 8]"
    assert not (run / "hparams.yaml").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_one_message(name, monkeypatch, capsys):
    logger = {"wandb": "WandbLogger", "mlflow": "MLFlowLogger"}[name]
    module = importlib.import_module(f"lightning.pytorch.loggers.{name}")
    monkeypatch.setattr(module, f"_{name.upper()}_AVAILABLE", False)
    assert main(["fit", *CNN, *DATA, overlay_option(name)]) == 2
    assert f"Expected `trainer.logger` {logger} to work" in capsys.readouterr().err
    assert not Path("lightning_logs").exists()
