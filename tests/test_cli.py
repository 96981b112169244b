"""The command line, driven in this process as a person would drive it."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import torch
import yaml
from tiny import CNN, DATA, MLP, fit, state_sha256
from torch import Tensor

from cifar_lightning.__main__ import main


def test_fit_fills_the_run_folder_and_test_adds_to_it(capsys):
    run = fit(*CNN)
    assert main(["test", "--run", str(run)]) == 0
    assert main(["predict", "--run", str(run)]) == 0
    assert main(["validate", "--run", str(run)]) == 0
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert files >= {
        "config.yaml",
        "metrics.csv",
        "result.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "predictions/test.csv",
    }
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["seed"] == 0
    assert result["name"] == "cnn"
    assert result["data"]["source"] == "synthetic"
    assert (result["data"]["train"], result["data"]["val"], result["data"]["test"]) == (500, 100, 200)
    for stage, split in (("fit", "val"), ("validate", "val"), ("test", "test")):
        entry = result[stage]
        assert set(entry) >= {"metrics", "seconds", "images_per_second", "peak_rss_bytes"}
        assert {f"{split}/{name}" for name in ("acc", "loss", "f1", "ece")} <= set(entry["metrics"])
    assert result["fit"]["epochs"] == 2
    confusion = torch.tensor(result["test"]["confusion"])
    assert confusion.sum() == 200
    assert confusion.diagonal().sum() / 200 == pytest.approx(result["test"]["metrics"]["test/acc"])
    said = capsys.readouterr().err
    assert "SYNTHETIC" in said
    assert not [noise for noise in ("💡 Tip", "`Trainer.fit` stopped", "GPU available: False") if noise in said]

    rows = (run / "predictions/test.csv").read_text().splitlines()
    assert len(rows) == 201
    hits = sum(row.split(",")[1] == row.split(",")[2] for row in rows[1:])
    assert hits == confusion.diagonal().sum()


def test_parameters_and_flops_agree_with_a_count_by_hand():
    run = fit("--model", "MLPClassifier", "--model.net.widths", "[32]", "--model.net.norm", "none")
    result = json.loads((run / "result.json").read_text())
    assert result["params"] == 3072 * 32 + 32 + 32 * 10 + 10
    assert result["flops_per_image"] == 2 * (3072 * 32 + 32 * 10)
    assert result["depth"] == 2


def test_a_layer_that_is_not_trained_adds_no_depth():
    run = fit(*CNN, "--model.net.depths", "[1, 2]", "--model.net.whiten_px", "2", "--trainer.max_epochs", "1")
    assert json.loads((run / "result.json").read_text())["depth"] == 4  # three convolutions and the head


def test_one_line_an_epoch_where_nobody_watches(capsys):
    fit(*MLP)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "val loss" in lines[0]
    assert "\r" not in "".join(lines)


@pytest.mark.slow
def test_a_bar_in_a_terminal():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))  # rows, columns; else it has none
    args = [sys.executable, "-m", "cifar_lightning", "fit", *DATA, *MLP]
    with subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends on Linux
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    text = shown.decode()
    assert process.returncode == 0, text
    assert "Epoch 0:" in text
    assert "5/5" in text
    assert "epoch 2/2:" in text
    assert "v_num" not in text


def test_a_name_may_lead_to_a_folder_in_a_folder():
    assert main(["fit", *MLP, *DATA, "--name=depth/three", "--version=v", "--trainer.max_epochs=1"]) == 0
    assert Path("lightning_logs/depth/three/v/result.json").is_file()


def test_metrics_csv_has_a_row_an_epoch(finished):
    run = finished(*MLP)
    header, *rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 2
    names = header.split(",")
    last = dict(zip(names, rows[-1].split(","), strict=True))
    assert last["epoch"] == "1"
    assert last["step"] == "10"
    assert float(last["lr"]) == 0.0  # the schedule ends with the training
    result = json.loads((run / "result.json").read_text())
    assert float(last["val/acc"]) == result["fit"]["metrics"]["val/acc"]


def test_early_stopping_stops_and_says_so():
    run = fit(*MLP, "--trainer.max_epochs=6", "--early_stopping.patience=1", "--early_stopping.min_delta=1.0")
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "early_stopped"
    assert result["fit"]["epochs"] == 2


def test_without_validation_the_last_epoch_is_the_result():
    run = fit(*MLP, "--data.val_size=0")
    result = json.loads((run / "result.json").read_text())
    assert result["data"]["train"] == 600
    assert result["fit"]["epochs"] == 2
    assert not any(name.startswith("val/") for name in result["fit"]["metrics"])
    assert main(["test", "--run", str(run)]) == 0
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]


def test_options_after_run_change_its_configuration(finished):
    run = finished(*CNN)
    assert main(["test", "--run", str(run)]) == 0
    plain = json.loads((run / "result.json").read_text())["test"]
    assert main(["test", "--run", str(run), "--model.tta", "flip"]) == 0
    flipped = json.loads((run / "result.json").read_text())["test"]
    assert (plain["tta"], flipped["tta"]) == ("none", "flip")
    assert plain["metrics"]["test/loss"] != flipped["metrics"]["test/loss"]


def test_an_option_beats_the_hyperparameters_in_a_checkpoint(finished):
    run = finished(*MLP)
    more = fit(
        *MLP, "--model.label_smoothing=0.3", "--trainer.max_epochs=3", "--ckpt_path", run / "checkpoints/last.ckpt"
    )
    config = yaml.safe_load((more / "config.yaml").read_text())
    assert config["model"]["init_args"]["label_smoothing"] == 0.3
    assert more != run


def test_the_saved_configuration_repeats_the_run(finished):
    run = finished(*MLP)
    again = Path("again")
    assert main(["fit", "--config", str(run / "config.yaml"), "--save_dir", str(again)]) == 0
    assert state_sha256(again / "mlp/version_0") == state_sha256(run)


def test_print_config_round_trips(capsys):
    def printed(*args: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            main(["fit", *args, "--print_config"])
        assert exit_.value.code == 0
        return capsys.readouterr().out

    first = printed("--model", "MLPClassifier", "--model.net.widths", "[32]", *DATA)
    Path("printed.yaml").write_text(first)
    assert printed("--config", "printed.yaml") == first


def test_ckpt_path_last_and_best_mean_the_newest_run(finished):
    finished(*MLP)
    newest = fit(*MLP, "--seed_everything=1")
    assert main(["test", *MLP, *DATA, "--ckpt_path", "best"]) == 0
    assert "test" in json.loads((newest / "result.json").read_text())


@pytest.mark.parametrize("option", ["enable_progress_bar", "enable_checkpointing", "enable_model_summary", "logger"])
def test_what_can_be_turned_off(option, capfd):
    run = fit(*MLP, f"--trainer.{option}=false")
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    said = "".join(capfd.readouterr())
    there = {
        "enable_progress_bar": "epoch 1/2" in said,
        "enable_checkpointing": (run / "checkpoints").exists(),
        "enable_model_summary": "Trainable params" in said,
        "logger": bool([*run.glob("events.out.tfevents.*")]),
    }
    assert there == {name: name != option for name in there}, said


def test_a_training_may_end_before_its_first_validation():
    run = fit(*MLP, "--trainer.max_steps=3")
    assert json.loads((run / "result.json").read_text())["fit"]["steps"] == 3
    run = fit(*MLP, "--trainer.limit_val_batches=0")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]


def test_rates_count_the_images_that_were_seen():
    run = fit(*MLP, "--trainer.limit_train_batches=2", "--trainer.max_epochs=1")
    entry = json.loads((run / "result.json").read_text())["fit"]
    assert entry["images_per_second"] * entry["seconds"] == pytest.approx(200, rel=0.1)


def test_fast_dev_run_writes_nothing():
    assert main(["fit", *MLP, *DATA, "--trainer.fast_dev_run=true"]) == 0
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_help_has_a_sentence_for_every_option_of_the_project(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    options = re.split(r"\n  (?=--)", text[text.index("options:") :])[1:]
    ours = ("--data.", "--figures.", "--layers.", "--seed", "--name", "--version", "--save_dir", "--run", "--ckpt_path")
    ours += ("--finite.", "--checkpoint.", "--checkpoint_every_n_steps", "--early_stopping.", "--test")
    checked = 0
    for option in options:
        if option.startswith(ours):
            heading, *lines = re.split(r" {2,}|\n", option.partition("(type:")[0])
            assert len(re.findall("[A-Za-z]{2,}", " ".join(lines))) >= 2, heading
            checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    ("option", "name", "shown"),
    [("--model.help", "CNNClassifier", "--model.label_smoothing"), ("--model.net.help", "CNN", "--net.widths")],
)
def test_help_of_a_model_and_of_a_network_shows_its_options(capsys, option, name, shown):
    with pytest.raises(SystemExit):
        main(["fit", option, name])
    assert shown in capsys.readouterr().out


def test_averaged_weights_are_what_is_evaluated_and_saved():
    ema = json.dumps([{"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}}])
    run = fit(*CNN, "--trainer.callbacks", ema)
    assert main(["validate", "--run", str(run), "--ckpt_path", "last"]) == 0
    result = json.loads((run / "result.json").read_text())
    assert result["validate"]["metrics"]["val/acc"] == result["fit"]["metrics"]["val/acc"]
    assert result["validate"]["metrics"]["val/loss"] == pytest.approx(result["fit"]["metrics"]["val/loss"], rel=1e-5)
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    averaged, raw = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert any(not torch.equal(averaged[name], raw[name]) for name in averaged)


@pytest.mark.slow
def test_compiled_training_gives_a_portable_checkpoint():
    run = fit(*MLP, "--model.compile=true", "--trainer.max_epochs=1")
    weights = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not any("_orig_mod" in name for name in weights)
    assert main(["test", "--run", str(run), "--model.compile=false"]) == 0


def test_bf16_mixed_rounds_the_steps_and_keeps_the_weights_in_float32():
    weights = {}
    for precision in ("32-true", "bf16-mixed"):
        run = fit(*CNN, f"--trainer.precision={precision}", "--trainer.max_steps=1", f"--version={precision}")
        assert json.loads((run / "result.json").read_text())["fit"]["precision"] == precision
        weights[precision] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    full, mixed = weights.values()
    assert {value.dtype for value in mixed.values()} == {value.dtype for value in full.values()}
    assert any(not torch.equal(value, mixed[name]) for name, value in full.items())
    torch.testing.assert_close(mixed, full, rtol=0, atol=0.02)


def test_gradient_clipping_bounds_the_update():
    lr = 0.1
    args = ("--model.optimizer", "torch.optim.SGD", f"--model.optimizer.lr={lr}", "--model.optimizer.momentum=0")
    args += ("--model.optimizer.nesterov=false", "--model.schedule=constant")
    before = fit(*MLP[:4], *args, "--trainer.max_steps=5", "--trainer.gradient_clip_val=0.001", "--version=a")
    after = fit(*MLP[:4], *args, "--trainer.max_steps=6", "--trainer.gradient_clip_val=0.001", "--version=b")

    def weights(run: Path) -> dict[str, Tensor]:
        checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
        return {k: v for k, v in checkpoint["state_dict"].items() if k.endswith(("weight", "bias"))}

    a, b = weights(before), weights(after)
    distance = torch.cat([(a[name] - b[name]).flatten() for name in a]).norm()
    assert 0 < distance <= lr * 0.001 * 1.01


def test_console_script_and_module_are_the_same_program():
    module = subprocess.run([sys.executable, "-m", "cifar_lightning", "--help"], capture_output=True, text=True)
    script = subprocess.run([Path(sys.executable).parent / "cifar-lightning", "--help"], capture_output=True, text=True)
    assert module.returncode == script.returncode == 0
    assert module.stdout == script.stdout
