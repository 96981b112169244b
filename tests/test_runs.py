from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from cifar_lightning import CLASSES
from cifar_lightning.callbacks.predictions import predictions_csv
from cifar_lightning.runs import (
    STATUS,
    Run,
    claim_folder,
    flatten,
    newest_run,
    release_if_empty,
    run_lock,
    write_result,
)
from cifar_lightning.runs.old_keys import upgraded


def test_entries_of_a_result_are_kept_and_replaced(tmp_path):
    assert Run(tmp_path).result == {}
    write_result(tmp_path, name="cnn", fit={"seconds": 3})
    write_result(tmp_path, status="completed", fit={"seconds": 4})
    expected = {"name": "cnn", "fit": {"seconds": 4}, "status": "completed"}
    assert Run(tmp_path).result == expected
    assert json.loads((tmp_path / "result.json").read_text()) == expected


def test_what_is_no_number_is_null(tmp_path):
    nan, inf = float("nan"), float("inf")
    write_result(tmp_path, a=nan, b={"c": -inf, "d": [1.5, nan, {"e": inf}]}, f=(nan, 2), g=0.25, h=None, i=True)
    text = (tmp_path / "result.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None,
        "b": {"c": None, "d": [1.5, None, {"e": None}]},
        "f": [None, 2],
        "g": 0.25,
        "i": True,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expected JSON in .*result.json, got: .* Restore the file or delete it."),
        ("[1]", "Expected a JSON object in .*result.json, got list. Restore or delete the file."),
    ],
)
def test_a_broken_result(tmp_path, text, message):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        _ = Run(tmp_path).result
    with pytest.raises(ValueError, match=message):
        write_result(tmp_path, status="completed")
    assert (tmp_path / "result.json").read_text() == text


# Run folders.


def test_folders_are_numbered(tmp_path):
    parent = tmp_path / "logs" / "cnn"
    assert claim_folder(tmp_path / "logs", "cnn", None) == parent / "version_0"
    assert claim_folder(tmp_path / "logs", "cnn", None) == parent / "version_1"
    for name in ("version_9", "version_x", "other"):
        (parent / name).mkdir()
    assert claim_folder(tmp_path / "logs", "cnn", None) == parent / "version_10"
    assert claim_folder(tmp_path / "logs", "mlp", None) == tmp_path / "logs" / "mlp" / "version_0"
    assert claim_folder(tmp_path / "logs", "cnn", "mine") == parent / "mine"
    assert (parent / "mine").is_dir()


def test_threads_that_race_get_a_folder_each(tmp_path):
    start = threading.Barrier(8)

    def claim(_: int) -> list[Path]:
        start.wait()
        return [claim_folder(tmp_path / "logs", "cnn", None) for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        claimed = [folder for folders in pool.map(claim, range(8)) for folder in folders]
    assert len(set(claimed)) == 80
    assert all(folder.is_dir() for folder in claimed)


def test_one_of_the_threads_gets_a_named_folder(tmp_path):
    start = threading.Barrier(8)

    def claim(_: int) -> bool:
        start.wait()
        try:
            claim_folder(tmp_path / "logs", "cnn", "mine")
        except ValueError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def test_a_version_that_exists(tmp_path):
    folder = claim_folder(tmp_path, "cnn", "mine")
    with pytest.raises(ValueError, match=r"`version` to name a new run, but .*mine exists") as caught:
        claim_folder(tmp_path, "cnn", "mine")
    assert f"`fit --run {folder}`" in str(caught.value)


@pytest.mark.parametrize("bad", ["a\0b", "two\nlines", "\x1b[2J"])
@pytest.mark.parametrize("option", ["name", "version"])
def test_names_that_cannot_be_shown(tmp_path, option, bad):
    names = {"name": "cnn", "version": "mine", option: bad}
    with pytest.raises(ValueError, match=rf"Expected `{option}` to be of printable characters, got '") as caught:
        claim_folder(tmp_path, **names)
    assert bad not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for save_dir, name in ((tmp_path / "file", "cnn"), (tmp_path, "file")):
        with pytest.raises(ValueError, match=r"Expected to make a run folder in /.*file.*--save_dir"):
            claim_folder(save_dir, name, "mine")

    def refuse(self: Path, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ValueError, match=rf"folder in {tmp_path}/logs/cnn, got: Permission denied\. Choose a folder"):
        claim_folder(Path("logs"), "cnn", None)


def test_an_empty_claim_is_taken_back_with_what_it_made(tmp_path):
    run = claim_folder(tmp_path / "logs", "cnn", None)
    release_if_empty(run)
    assert os.listdir(tmp_path) == []


def test_a_claim_with_content_stays(tmp_path):
    run = claim_folder(tmp_path / "logs", "cnn", None)
    (run / "config.yaml").write_text("")
    release_if_empty(run)
    assert (run / "config.yaml").is_file()


def test_the_neighbours_of_an_empty_claim_stay(tmp_path):
    other, run = (claim_folder(tmp_path / "logs", "cnn", None) for _ in range(2))
    release_if_empty(run)
    assert other.is_dir()
    assert not run.exists()


def make_run(folder: Path, *checkpoints: str, age_s: int = 0) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    for name in checkpoints:
        path = folder / "checkpoints" / f"{name}.ckpt"
        path.write_bytes(b"")
        os.utime(path, (1_000_000 - age_s, 1_000_000 - age_s))
    return folder


def test_the_newest_run_is_the_one_last_written(tmp_path):
    make_run(tmp_path / "version_9", "last", age_s=300)
    newest = make_run(tmp_path / "version_2", "last", age_s=100)
    make_run(tmp_path / "version_10", "last", age_s=200)
    make_run(tmp_path / "version_11", "best")
    make_run(tmp_path / "version_12")
    assert newest_run(tmp_path) == newest


@pytest.mark.parametrize("exists", [True, False])
def test_no_run_is_the_newest(tmp_path, exists):
    if exists:
        make_run(tmp_path / "logs" / "version_0", "best")
    with pytest.raises(ValueError, match=r"a run with checkpoints/last.ckpt in .*logs, found none.*`--run FOLDER`"):
        newest_run(tmp_path / "logs")


def test_a_folder_that_is_not_a_run(tmp_path):
    for attribute in ("config_path", "config_text", "config"):
        with pytest.raises(ValueError, match=r"Expected the folder of a run.*got .*/run, which does not exist\."):
            getattr(Run(tmp_path / "run"), attribute)
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match=r"got .*/run, which holds no config.yaml\."):
        _ = Run(tmp_path / "run").config
    (tmp_path / "run" / "config.yaml").write_text("")
    assert Run(tmp_path / "run").config_path == tmp_path / "run" / "config.yaml"


def test_the_configuration_of_a_run(tmp_path):
    (tmp_path / "config.yaml").write_text("model:\n  init_args:\n    lr: 1e-3\n")
    run = Run(str(tmp_path))
    assert run.config == {"model": {"init_args": {"lr": 0.001}}}  # a number, as on the command line
    assert run.config_text.startswith("model:")
    for text, message in ((": {", r"Expected YAML in .*config\.yaml, got:"), ("7", "Expected the options .*, got int")):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            _ = Run(tmp_path).config


def test_options_by_the_names_that_are_typed():
    net = {"class_path": "pkg.nets.MLP", "init_args": {"widths": [1, 2], "norm": None}}
    tree = {"model": {"class_path": "pkg.A", "init_args": {"net": net, "lr": 0.1}}, "seed": 3, "empty": {}}
    expected = {"model": "pkg.A", "model.net": "pkg.nets.MLP", "model.net.widths": [1, 2], "model.net.norm": None}
    assert flatten(tree) == {**expected, "model.lr": 0.1, "seed": 3}
    assert flatten(tree, short_classes=True) == {**flatten(tree), "model": "A", "model.net": "MLP"}


def test_a_run_that_is_not_there_has_no_results(tmp_path):
    run = Run(tmp_path / "logs/cnn/version_3")
    assert (run.name, run.version, run.title) == ("cnn", "version_3", "cnn/version_3")
    assert (run.result, run.status, run.stopped_by, run.is_finished, run.history()) == ({}, None, None, False, {})


@pytest.mark.parametrize("status", STATUS)
def test_how_a_training_ended(tmp_path, status):
    write_result(tmp_path, status=status, stopped_by="x")
    run = Run(tmp_path)
    assert (run.status, run.stopped_by) == (status, "x")
    assert run.is_finished is (status in ("completed", "early_stopped"))


def test_curves_over_epochs(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,val/acc\n0,0.5\n1,\n")
    history = Run(tmp_path).history()
    assert history["epoch"] == [0, 1]
    assert history["val/acc"][0] == 0.5
    assert history["val/acc"][1] != history["val/acc"][1]
    (tmp_path / "metrics.csv").write_text("epoch,val/acc\n0,high\n")
    with pytest.raises(ValueError, match=r"Expected numbers in .*metrics.csv, got: .*high.*Restore the file"):
        Run(tmp_path).history()


def test_predictions_are_read_as_they_were_written(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(ValueError, match=r"Expected predictions in .*test\.csv, found none\. Run `predict --run "):
        run.predictions()
    probabilities = torch.rand(5, 10).softmax(1)
    indices, labels = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([9, 0, 3, 3, 5])
    run.predictions_path().parent.mkdir()
    run.predictions_path().write_text(predictions_csv(indices, labels, probabilities))
    found, order = run.predictions("test"), indices.argsort()
    assert found.indices.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(found.labels, labels[order])
    assert torch.equal(found.classes, probabilities.argmax(1)[order])
    torch.testing.assert_close(found.probabilities, probabilities[order], rtol=0, atol=1e-6)
    for text in ("index,label\n0,cat\n", f"index,label,prediction,{','.join(CLASSES)}\n0,horse,unicorn" + ",0" * 10):
        run.predictions_path().write_text(text)
        with pytest.raises(ValueError, match=r"Expected predictions in .*test\.csv, got:"):
            run.predictions()


def test_one_process_at_a_time_writes_to_a_run(tmp_path):
    with (
        run_lock(tmp_path),
        pytest.raises(ValueError, match=r"Another process is using .*--version"),
        run_lock(tmp_path),
    ):
        pytest.fail("two at once")
    with run_lock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("there", "asked", "found"),
    [
        (("best", "last"), "best", "best"),
        (("best", "last"), "last", "last"),
        (("last",), "best", "last"),
        (("best",), "last", None),
        ((), "best", None),
        ((), "last", None),
    ],
)
def test_best_falls_back_to_last_but_not_the_other_way(tmp_path, there, asked, found):
    run = make_run(tmp_path / "run", *there)
    if found:
        assert Run(run).checkpoint(asked) == run / "checkpoints" / f"{found}.ckpt"
        return
    with pytest.raises(ValueError, match=rf"Expected the checkpoint {asked}\.ckpt in .*checkpoints, found none"):
        Run(run).checkpoint(asked)


def test_configurations_of_earlier_versions_are_read_with_todays_keys():
    old = {
        "model": {
            "class_path": "cifar_lightning.models.CNNClassifier",
            "init_args": {
                "widths": [8, 8],
                "dropout": 0.2,
                "optimizer": {"class_path": "torch.optim.SGD"},
                "tta": "flip",
            },
        },
        "figures": {
            "confusion_every_n_epochs": 1,
            "filters_every_n_epochs": 5,
            "mistakes_every_n_epochs": 0,
            "projector_images": 9,
        },
        "layers": {"norms_every_n_steps": 7, "activations_every_n_epochs": 1, "activation_images": 3},
    }
    new = upgraded(old)
    net = {"class_path": "cifar_lightning.models.CNN", "init_args": {"widths": [8, 8], "dropout": 0.2}}
    assert new["model"]["init_args"] == {"net": net, "optimizer": {"class_path": "torch.optim.SGD"}, "tta": "flip"}
    assert new["figures"] == {"every_n_epochs": 5, "show": ["confusion", "filters", "projector"]}
    assert new["layers"] == {"every_n_steps": 7}
    assert upgraded(new) == new
    assert "widths" in old["model"]["init_args"]  # as it was
