"""The status names the end of a training; the next `fit --run` continues it exactly or leaves it unchanged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import yaml
from faults.training import DATA, remains
from stopping import PowerCut
from tiny import BARE, CNN, MLP

from cifar_lightning.__main__ import main
from cifar_lightning.sweeps.execute import execute
from cifar_lightning.sweeps.plan import Sweep, expand

# 10 batches in each of 4 epochs.
CONSTANT = (*MLP, *BARE, "--model.schedule=constant")
WHOLE = (*DATA, *CONSTANT, "--name=x", "--version=whole")
STOP = "--trainer.callbacks+=stopping.StopInside"


def train(version, *options, kind=CONSTANT, status=0):
    assert main(["fit", *DATA, *kind, "--name=x", f"--version={version}", *map(str, options)]) == status
    return Path(f"lightning_logs/x/{version}")


def go_on(run, *options, status=0):
    assert main(["fit", "--run", str(run), *map(str, options)]) == status


def result(run):
    return json.loads((run / "result.json").read_text())


def how(run):
    return result(run)["status"], result(run).get("stopped_by")


def state(run):
    """All that a command that trains nothing must leave as it was."""
    names = ("config.yaml", "result.json", "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt")
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names if (run / name).exists()}


def assert_equal(run, whole):
    found, expected = remains(run), remains(whole)
    for what, value in expected.items():
        assert found[what] == value, what


# ---- stops inside an epoch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 13, 20, 27])
def test_a_training_of_so_many_steps_is_complete_and_a_longer_one_goes_on(steps, finished):
    whole = finished(*WHOLE)
    part = train("part", f"--trainer.max_steps={steps}")
    assert how(part) == ("completed", None)
    fit = result(part)["fit"]
    assert (fit["steps"], fit["epochs"]) == (steps, steps // 10)
    rows = (part / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[1]) for row in rows] == [*range(10, steps + 1, 10), *([steps] if steps % 10 else [])]
    saved = torch.load(part / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == steps
    go_on(part, "--trainer.max_steps=33")
    assert how(part) == ("completed", None)
    go_on(part, "--trainer.max_steps=-1")
    assert_equal(part, whole)


def test_metrics_of_an_epoch_that_is_cut_short_are_its_own():
    run = train("part", "--trainer.max_steps=13")
    header, first, second = (line.split(",") for line in (run / "metrics.csv").read_text().splitlines())
    first, second = dict(zip(header, first, strict=True)), dict(zip(header, second, strict=True))
    assert second["val/acc"] == second["train/images_per_second"] == ""
    assert float(second["train/acc"]) * 150 == pytest.approx(round(float(second["train/acc"]) * 150))  # 3 x 50 images
    assert "val/acc" not in result(run)["fit"]["metrics"]
    assert result(run)["fit"]["metrics"]["train/acc"] == float(second["train/acc"]) != float(first["train/acc"])


@pytest.mark.parametrize(
    ("options", "after", "stops_at"),
    [
        ((), 13, 13),
        ((), 20, 20),
        (("--trainer.accumulate_grad_batches=4",), 13, 16),  # not in the middle of a step; 12 batches per epoch
        (("--trainer.accumulate_grad_batches=4",), 19, 20),
        (("--trainer.accumulate_grad_batches=4",), 23, 24),
        (("--trainer.val_check_interval=0.5",), 15, 15),  # after the validation that is due there
        (("--trainer.val_check_interval=0.3",), 17, 17),
        (("--trainer.val_check_interval=0.3",), 20, 20),  # no validation is due at the end of an epoch
        (("--trainer.val_check_interval=7", "--trainer.check_val_every_n_epoch=null"), 14, 14),
        (("--trainer.check_val_every_n_epoch=2",), 14, 14),
    ],
)
def test_asked_to_stop_by_a_callback_and_continued_equals_never_stopped(options, after, stops_at, capsys, finished):
    whole = finished(*WHOLE, *options)
    part = train("part", *options, STOP, f"--trainer.callbacks.after={after}")
    assert how(part) == ("interrupted", "trainer.should_stop")
    every = 4 if "accumulate" in "".join(options) else 1
    batches = 12 if every == 4 else 10  # of an epoch
    if stops_at % batches:
        assert f"fit --run {part}" in capsys.readouterr().err
    saved = torch.load(part / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == stops_at // batches * -(-batches // every) + -(-(stops_at % batches) // every)
    go_on(part, "--trainer.callbacks=null")
    assert how(part) == ("completed", None)
    assert_equal(part, whole)


def test_asked_to_stop_in_a_validation_inside_an_epoch(finished):
    options = ("--trainer.val_check_interval=0.5",)
    whole = finished(*WHOLE, *options)
    part = train("part", *options, STOP, "--trainer.callbacks.after=12", "--trainer.callbacks.in_validation=true")
    assert torch.load(part / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 15
    go_on(part, "--trainer.callbacks=null")
    assert_equal(part, whole)


def test_time_that_is_up_interrupts_and_the_next_call_has_all_of_it_again():
    whole = train("whole", "--trainer.max_epochs=20", kind=(*MLP, *BARE, "--model.schedule=linear"))
    limit = ("--trainer.max_epochs=20", "--trainer.max_time={milliseconds: 200}")
    part = train("part", *limit, kind=(*MLP, *BARE, "--model.schedule=linear"))
    assert how(part) == ("interrupted", "max_time")
    steps = torch.load(part / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert 0 < steps < 200
    go_on(part)
    assert torch.load(part / "checkpoints/last.ckpt", weights_only=True)["global_step"] > steps
    go_on(part, "--trainer.max_time=null")
    assert how(part) == ("completed", None)
    assert_equal(part, whole)


def test_accumulation_that_changes_with_the_epoch_goes_on_inside_one(finished):
    scheduler = {"class_path": "GradientAccumulationScheduler", "init_args": {"scheduling": {0: 1, 1: 2, 2: 5}}}
    stop = {"class_path": "stopping.StopInside", "init_args": {"after": 23}}
    whole = finished(*WHOLE, f"--trainer.callbacks={json.dumps([scheduler])}")
    part = train("part", f"--trainer.callbacks={json.dumps([scheduler, stop])}")
    assert torch.load(part / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 10 + 5 + 1
    go_on(part, f"--trainer.callbacks={json.dumps([scheduler])}")
    assert_equal(part, whole)


# ---- ends that are final ---------------------------------------------------------------------------------------------

EARLY = ("--early_stopping.patience=1", "--model.optimizer.lr=0.0", "--trainer.max_epochs=20")


@pytest.mark.parametrize("interval", ["1.0", "0.5"])
def test_early_stopping_is_remembered_where_the_process_died_before_its_result(interval, finished):
    options = (*EARLY, f"--trainer.val_check_interval={interval}")
    whole = finished(*WHOLE, *options)
    assert how(whole) == ("early_stopped", "EarlyStopping by val/acc")
    with pytest.raises(PowerCut):
        train("part", *options, "--trainer.callbacks=stopping.KillAtEnd")
    part = Path("lightning_logs/x/part")
    go_on(part, "--trainer.callbacks=null")
    assert how(part) == how(whole)
    for key in ("epochs", "steps", "best"):
        assert result(part)["fit"][key] == result(whole)["fit"][key]
    assert remains(part)["last"] == remains(whole)["last"]


def test_a_pruned_run_stays_pruned():
    Path("rungs/1_epochs").mkdir(parents=True)
    Path("rungs/1_epochs/other.json").write_text("1.0")
    prune = ["--trainer.callbacks=cifar_lightning.callbacks.pruning.Pruning", "--trainer.callbacks.folder=rungs"]
    prune += ["--trainer.callbacks.run=one"]
    with pytest.raises(PowerCut):
        train("part", *prune, "--trainer.callbacks+=stopping.KillAtEnd")
    run = Path("lightning_logs/x/part")
    go_on(run, *prune)
    assert how(run) == ("pruned", "Pruning by val/acc")
    assert result(run)["fit"]["epochs"] == 1
    before = state(run)
    go_on(run, *prune, "--trainer.max_epochs=9")
    assert state(run) == before


def test_the_last_epoch_completes_a_training_that_early_stopping_would_end_there():
    run = train("part", *EARLY[:2], "--trainer.max_epochs=2")
    assert how(run) == ("completed", None)


# ---- continuations that train nothing, or fail -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ((), 0),
        (("--trainer.max_epochs=4",), 0),
        (("--trainer.max_epochs=2",), 0),
        (("--trainer.max_steps=7",), 0),
        (("--data.cutout_px=4",), 0),
        (("--trainer.max_epochs=5", "--model.optimizer=torch.optim.RMSprop"), 2),
        (("--trainer.max_epochs=5", "--model.optimizer.lr=0.5"), 2),
        (("--trainer.max_epochs=5", "--model.net.widths=[16]"), 2),
        (("--trainer.max_epochs=5", "--model.net.norm=none"), 2),
        (("--trainer.max_epochs=5", "--seed_everything=5"), 2),
        (("--trainer.max_epochs=5", "--data.split_seed=5"), 2),
        (("--trainer.max_epochs=5", "--data.val_size=0"), 2),
        (("--trainer.max_epochs=5", "--early_stopping.patience=3"), 2),
        (("--trainer.max_epochs=5", "--trainer.callbacks=LearningRateFinder"), 2),
        (("--trainer.max_epochs=5", "--trainer.callbacks=stopping.Fail", "--trainer.callbacks.after=43"), 2),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, tuple) else "",
)
def test_a_continuation_that_trains_nothing_or_fails_leaves_the_run_as_it_was(options, status, capsys, finished):
    run = finished(*WHOLE)
    before = state(run)
    capsys.readouterr()
    go_on(run, *options, status=status)
    assert state(run) == before
    said = capsys.readouterr().err
    if status == 0:
        assert f"{run} is complete after 4 epochs, 40 steps" in said
    else:
        assert said.count("error: ") == 1


def test_what_a_continued_training_would_ignore_is_named_with_both_values(capsys, finished):
    run = finished(*WHOLE)
    go_on(run, "--trainer.max_epochs=5", "--model.optimizer.lr=0.5", status=2)
    assert "`--model.optimizer.lr` 0.1 (got 0.5)" in capsys.readouterr().err


def test_a_continuation_that_fails_later_has_failed_and_goes_on(finished):
    whole = finished(*WHOLE, "--trainer.max_epochs=6")
    run = train("part")
    go_on(run, "--trainer.max_epochs=6", "--trainer.callbacks=stopping.Fail", "--trainer.callbacks.after=55", status=2)
    assert how(run) == ("failed", None)
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 6
    go_on(run, "--trainer.callbacks=null")
    assert how(run) == ("completed", None)
    assert_equal(run, whole)


def test_a_longer_training_has_no_status_until_it_ends(finished):
    run = finished(*WHOLE)
    with pytest.raises(PowerCut):
        go_on(run, "--trainer.max_epochs=5", "--trainer.callbacks=stopping.KillAtEnd")
    assert "status" not in result(run)
    go_on(run, "--trainer.callbacks=null")
    assert how(run) == ("completed", None)
    assert result(run)["fit"]["epochs"] == 5


@pytest.mark.parametrize("move", ["rename", "move", "copy"])
def test_a_run_that_lies_elsewhere_keeps_its_best_weights(move, tmp_path):
    options = ("--model.optimizer.lr=0.02", "--trainer.max_epochs=3")
    run = train("first", *options)
    # As if no later epoch could be better.
    for name in ("last", "best"):
        path = run / f"checkpoints/{name}.ckpt"
        saved = torch.load(path, weights_only=True)
        (key,) = (key for key in saved["callbacks"] if key.startswith("RunCheckpoint"))
        saved["callbacks"][key]["best_model_score"] = torch.tensor(0.99)
        saved["callbacks"][key]["best_k_models"] = {
            k: torch.tensor(0.99) for k in saved["callbacks"][key]["best_k_models"]
        }
        torch.save(saved, path)
    best = hashlib.sha256((run / "checkpoints/best.ckpt").read_bytes()).hexdigest()
    new = {"rename": run.parent / "good", "move": tmp_path / "far" / "away", "copy": run.parent / "second"}[move]
    new.parent.mkdir(exist_ok=True)
    if move == "copy":
        import shutil

        shutil.copytree(run, new)
    else:
        run.rename(new)
    go_on(new, "--trainer.max_epochs=5")
    assert result(new)["fit"]["best"]["score"] == pytest.approx(0.99)
    assert hashlib.sha256((new / "checkpoints/best.ckpt").read_bytes()).hexdigest() == best


# ---- images that were trained on -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [("--data.split_seed=5",), ("--data.val_size=200",), ("--data.synthetic_train=700",)], ids=lambda o: o[0]
)
@pytest.mark.parametrize("door", ["--run", "--ckpt_path"])
def test_validation_on_images_that_were_trained_on_is_refused(options, door, capsys, finished):
    run = finished(*WHOLE, "--trainer.max_epochs=1")
    before = state(run)
    command = (
        ["--run", str(run)]
        if door == "--run"
        else [*DATA, *CONSTANT, "--ckpt_path", str(run / "checkpoints/best.ckpt")]
    )
    assert main(["validate", *command, *options]) == 2
    assert options[0].removeprefix("--").split("=")[0] in capsys.readouterr().err or door == "--ckpt_path"
    assert state(run) == before
    assert main(["validate", "--run", str(run), "--data.train_size=100", "--data.eval_batch_size=7"]) == 0


def test_a_new_training_from_a_checkpoint_keeps_its_validation_images(capsys):
    run = train("whole", "--trainer.max_epochs=1", kind=(*CNN, *BARE))
    options = ("--ckpt_path", run / "checkpoints/last.ckpt")
    train("other", *options, "--data.split_seed=1", kind=(*CNN, *BARE), status=2)
    assert "not trained on" in capsys.readouterr().err
    assert not Path("lightning_logs/x/other").exists()
    train("same", *options, kind=(*CNN, *BARE))


# ---- sweeps ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_continues_a_run_whose_time_is_up():
    options = {option.removeprefix("--").partition("=")[0]: option.partition("=")[2] for option in (*DATA, *BARE)}
    # No time at all: each call trains one step, on a machine of any speed.
    options |= {"trainer.max_epochs": 1, "trainer.limit_train_batches": 2, "model.schedule": "linear"}
    options |= {"trainer.max_time": "{milliseconds: 1}"}
    Path("mlp.yaml").write_text("model: {class_path: MLPClassifier, init_args: {net: {widths: [32]}}}\n")
    sweep = Sweep(name="s", axes=[{"data.cutout_px": [0]}], configs=["mlp.yaml"], options=options, test=False)
    (run,) = expand(sweep)
    assert execute(run, sweep, Path.cwd() / "logs/s", Path.cwd()).error == ""
    folder = Path("logs/s") / run.id
    assert how(folder) == ("completed", None)
    assert result(folder)["fit"]["steps"] == 2
    calls = (Path("logs/s/logs") / f"{run.id}.log").read_text().count("$ ")
    assert calls > 1
