"""Callbacks of Lightning that change what is trained: right weights, right records, and a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from faults.training import DATA, remains
from stopping import PowerCut
from tiny import BARE, MLP

from cifar_lightning.__main__ import main
from cifar_lightning.metrics import direction

# 10 batches in each of 4 epochs.
PLAIN = (*MLP, *BARE, "--model.schedule=constant", "--model.net.dropout=0")


def train(version, *options, status=0):
    assert main(["fit", *DATA, *PLAIN, "--name=x", f"--version={version}", *map(str, options)]) == status
    return Path(f"lightning_logs/x/{version}")


def go_on(run, *options, command="fit", status=0):
    assert main([command, "--run", str(run), *map(str, options)]) == status


def callbacks(*entries):
    return f"--trainer.callbacks={json.dumps([{'class_path': name, 'init_args': args} for name, args in entries])}"


def checkpoint(run, name="last"):
    return torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)


def config(run):
    return yaml.safe_load((run / "config.yaml").read_text())


def result(run):
    return json.loads((run / "result.json").read_text())


def rows(run):
    header, *lines = (line.split(",") for line in (run / "metrics.csv").read_text().splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


# ---- weights ---------------------------------------------------------------------------------------------------------

SWA = ("StochasticWeightAveraging", {"swa_lrs": 0.01, "swa_epoch_start": 2})
KEEP = ("recording.RecordWeights", {})


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_stochastic_weight_averaging_is_in_the_last_checkpoint(norm):
    """The mean of the weights at the starts of epochs 2 to 4."""
    run = train("swa", callbacks(SWA, KEEP), f"--model.net.norm={norm}")
    starts = torch.load("weights.pt", weights_only=True)
    expected = torch.stack([starts[epoch]["net.head.weight"] for epoch in (1, 2, 3)]).mean(0)
    found = checkpoint(run)["state_dict"]["net.head.weight"]
    torch.testing.assert_close(found, expected)
    assert result(run)["status"] == "completed"
    go_on(run, "--ckpt_path=last", command="test")
    go_on(run, "--trainer.max_epochs=6")
    assert result(run)["status"] == "completed"
    assert config(run)["trainer"]["callbacks"][0]["init_args"]["device"] == "cpu"


def test_stochastic_weight_averaging_goes_on_inside_an_epoch():
    whole = train("whole", callbacks(SWA), "--model.net.norm=none")
    part = train("part", callbacks(SWA, ("stopping.StopInside", {"after": 23})), "--model.net.norm=none")
    assert checkpoint(part)["global_step"] == 23
    go_on(part, callbacks(SWA))
    for what, value in remains(whole).items():
        assert remains(part)[what] == value, what


def test_pruned_weights_are_zero_and_the_run_goes_on():
    prune = ("ModelPruning", {"pruning_fn": "l1_unstructured", "amount": 0.5, "use_lottery_ticket_hypothesis": False})
    run = train("pruned", callbacks(prune), "--trainer.max_epochs=1")
    weights = checkpoint(run)["state_dict"]
    total = sum(w.numel() for name, w in weights.items() if name.startswith("net.") and name.endswith("weight"))
    zeros = sum(int((w == 0).sum()) for name, w in weights.items() if name.startswith("net."))
    assert zeros > 0.4 * total
    assert config(run)["trainer"]["callbacks"][0]["init_args"]["pruning_fn"] == "l1_unstructured"
    go_on(run, command="test")
    go_on(run, "--trainer.max_epochs=2")
    assert result(run)["status"] == "completed"


def test_what_no_file_can_hold_is_refused_before_anything_is_written(capsys):
    train("odd", "--trainer.callbacks=recording.Unwritable", status=2)
    assert not Path("lightning_logs").exists()
    assert "`trainer.callbacks.marker` as text, numbers or lists" in capsys.readouterr().err


# ---- settings that are found -----------------------------------------------------------------------------------------


def test_the_learning_rate_that_was_found_is_used_and_recorded():
    finder = ("LearningRateFinder", {"min_lr": 1e-3, "max_lr": 0.3, "num_training_steps": 20})
    run = train("found", callbacks(finder), "--model.schedule=linear", "--model.warmup_epochs=1")
    lr = config(run)["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    assert 1e-3 <= lr <= 0.3
    assert lr != 0.1
    assert config(run)["trainer"]["callbacks"] is None
    # Warmed up in one epoch, then on a line to 0 after the fourth.
    assert [float(row["lr"]) for row in rows(run)] == pytest.approx([lr, lr * 2 / 3, lr / 3, 0], abs=1e-9)
    # The configuration repeats the run.
    assert main(["fit", "--config", str(run / "config.yaml"), "--name=x", "--version=again"]) == 0
    again = Path("lightning_logs/x/again")
    for name in ("last", "best"):
        assert remains(again)[name] == remains(run)[name]


def test_several_learning_rates_cannot_be_found(capsys):
    train("found", callbacks(("LearningRateFinder", {})), "--model.optimizer=cifar_lightning.optim.Muon", status=2)
    assert (
        "Expected `--model.optimizer` with one learning rate for LearningRateFinder, got 3" in capsys.readouterr().err
    )


@pytest.mark.parametrize("largest", [64, 1024])
def test_the_batch_size_that_was_found_is_used_and_recorded(largest):
    finder = ("BatchSizeFinder", {"init_val": 16, "steps_per_trial": 1, "max_val": largest})
    run = train("found", callbacks(finder), "--trainer.max_epochs=1")
    size = config(run)["data"]["batch_size"]
    assert size == min(largest, 500)  # there are no more images
    assert config(run)["trainer"]["callbacks"] is None
    assert result(run)["fit"]["steps"] == -(-500 // size)
    assert main(["fit", "--config", str(run / "config.yaml"), "--name=x", "--version=again"]) == 0
    assert remains(Path("lightning_logs/x/again"))["last"] == remains(run)["last"]


# ---- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_learning_rate_comes_to_its_end_where_accumulation_changes(schedule):
    changes = ("GradientAccumulationScheduler", {"scheduling": {0: 1, 1: 2, 2: 5}})
    run = train("part", callbacks(changes), f"--model.schedule={schedule}")
    assert result(run)["fit"]["steps"] == 10 + 5 + 2 + 2
    assert float(rows(run)[-1]["lr"]) == pytest.approx(0, abs=1e-9)
    if schedule == "linear":
        assert [float(row["lr"]) for row in rows(run)] == pytest.approx([0.1 * left / 19 for left in (9, 4, 2, 0)])


def test_an_option_of_the_model_that_is_null_is_off_or_refused(capsys):
    run = train("off", "--model.schedule=null", "--model.tta=null", "--trainer.max_epochs=2")
    assert [float(row["lr"]) for row in rows(run)] == [0.1, 0.1]
    options = config(run)["model"]["init_args"]
    assert (options["schedule"], options["tta"]) == ("constant", "none")
    go_on(run, command="test")
    Path("null.yaml").write_text("model: {init_args: {label_smoothing: null, warmup_epochs: null}}\n")
    train("refused", "--config=null.yaml", status=2)
    said = capsys.readouterr().err
    assert "Expected a value for `model.warmup_epochs`, `model.label_smoothing`, got null" in said
    Path("null.yaml").write_text(
        "model: {init_args: {optimizer: {class_path: torch.optim.SGD, init_args: {momentum: null}}}}\n"
    )
    train("refused", "--config=null.yaml", status=2)
    assert "Expected a value for `model.optimizer.momentum`, got null" in capsys.readouterr().err


# ---- what is watched -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "good"),
    [("val/loss", "min"), ("val/ece", "min"), ("val/acc", "max"), ("val/f1", "max"), ("val/class_acc/cat", "max")],
)
def test_the_direction_follows_from_the_metric(metric, good):
    assert direction(metric) == good
    watch = (f"--checkpoint.monitor={metric}", f"--early_stopping.monitor={metric}")
    run = train("part", *watch, "--early_stopping.patience=2", "--trainer.max_epochs=6")
    values = [float(row[metric]) for row in rows(run)]
    best = (min if good == "min" else max)(values)
    assert result(run)["fit"]["best"] == {"monitor": metric, "score": pytest.approx(best)}
    assert checkpoint(run, "best")["epoch"] == values.index(best)
    without = len(values) - 1 - values.index(best)
    assert without == 2 if result(run)["status"] == "early_stopped" else without <= 2


@pytest.mark.parametrize(
    "options",
    [
        ("--checkpoint.monitor=val/loss", "--checkpoint.mode=max"),
        ("--early_stopping.mode=min",),
        ("--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/acc"),  # Lightning's own default is min
        ("--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.mode=max"),
    ],
)
def test_a_direction_that_contradicts_the_metric_is_refused(options, capsys):
    train("part", *options, status=2)
    assert "mode` m" in (said := capsys.readouterr().err)
    assert "values are good, got m" in said
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize(
    "option", ["filename=x", "save_top_k=3", "dirpath=elsewhere", "save_weights_only=true", "save_last=true"]
)
def test_options_that_other_commands_rely_on_stay(option, capsys):
    train("part", f"--checkpoint.{option}", status=2)
    assert f"Expected `--checkpoint.{option.split('=')[0]}` to be " in capsys.readouterr().err


def test_another_checkpoint_lies_beside_ours():
    more = ("ModelCheckpoint", {"monitor": "val/loss", "save_top_k": -1, "filename": "{epoch}"})
    run = train("part", callbacks(more), "--trainer.max_epochs=2")
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "epoch=0.ckpt", "epoch=1.ckpt"}


# ---- metrics of an epoch ---------------------------------------------------------------------------------------------


def test_an_epoch_without_a_validation_has_no_validation_metrics(capsys):
    run = train("part", "--trainer.check_val_every_n_epoch=2")
    assert [row["val/acc"] != "" for row in rows(run)] == [False, True, False, True]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert ["val loss" in line for line in lines] == [False, True, False, True]


def test_pruning_compares_at_the_first_validation_after_a_rung():
    Path("rungs/2_epochs").mkdir(parents=True)
    Path("rungs/2_epochs/other.json").write_text("1.0")
    prune = ("cifar_lightning.callbacks.pruning.Pruning", {"folder": "rungs", "run": "one"})
    run = train("part", callbacks(prune), "--trainer.check_val_every_n_epoch=2")
    assert result(run)["status"] == "pruned"
    assert result(run)["fit"]["epochs"] == 2
    assert json.loads(Path("rungs/2_epochs/one.json").read_text()) == pytest.approx(float(rows(run)[1]["val/acc"]))


def test_validation_metrics_inside_an_epoch_survive_an_interruption():
    options = ("--trainer.val_check_interval=0.4",)
    whole = train("whole", *options)
    part = train("part", *options, callbacks(("stopping.StopInside", {"after": 19})))
    go_on(part, "--trainer.callbacks=null")
    assert remains(part)["metrics.csv"] == remains(whole)["metrics.csv"]


@pytest.mark.parametrize("batches", ["1", "3", "0.2"])
def test_overfitting_takes_the_same_batches_in_every_epoch(batches):
    train(
        "part",
        f"--trainer.overfit_batches={batches}",
        "--data.eval_batch_size=20",
        callbacks(("recording.RecordIndices", {})),
    )
    seen = [torch.load(f"indices-{epoch}-0.pt", weights_only=True) for epoch in range(4)]
    assert len(seen[0]) == {"1": 50, "3": 150, "0.2": 100}[batches]
    assert all(torch.equal(indices, seen[0]) for indices in seen)


def test_killed_between_the_averaged_weights_and_their_checkpoint():
    whole = train("whole", callbacks(SWA), "--model.net.norm=none")
    with pytest.raises(PowerCut):
        train("part", callbacks(("stopping.KillAtEnd", {}), SWA), "--model.net.norm=none")
    part = Path("lightning_logs/x/part")
    go_on(part, callbacks(SWA))
    torch.testing.assert_close(
        checkpoint(part)["state_dict"]["net.head.weight"], checkpoint(whole)["state_dict"]["net.head.weight"]
    )


@pytest.mark.parametrize(("share", "images"), [("0.5", 50), ("0.25", 25), ("1.0", 100), ("1", 100)])
def test_a_share_of_the_validation_images_is_one_whatever_the_batch_size(share, images):
    run = train("part", f"--trainer.limit_val_batches={share}", "--trainer.max_epochs=1")
    accuracy = float(rows(run)[0]["val/acc"]) * images
    assert accuracy == pytest.approx(round(accuracy), abs=1e-4)
    go_on(run, f"--trainer.limit_val_batches={share}", command="validate")
    assert sum(map(sum, result(run)["validate"]["confusion"])) == images
