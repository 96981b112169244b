"""What the command line makes of the trainer's arguments."""

import json

import pytest
from lightning.pytorch.strategies import DDPStrategy
from tiny import DATA, MLP, fit

from cifar_lightning.__main__ import main
from cifar_lightning.trainer_options import script_strategy


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("simple", "run_training_epoch"),
        ("advanced", "function calls"),
        ("pytorch", "Self CPU time total"),
        ("SimpleProfiler", "run_training_epoch"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch Profiler default schedule:UserWarning")  # few validation batches
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning")  # torch 2.15, of Lightning's use
def test_profilers_write_into_the_run(name, content):
    run = fit(*MLP, "--trainer.profiler", name)
    assert main(["test", "--run", str(run)]) == 0
    tables = sorted(run.glob("profile/*.txt"))
    assert [path.name for path in tables] == [f"fit-{name}.txt", f"test-{name}.txt"]
    assert content in tables[0].read_text()
    traces = list(run.glob("profile/fit-*training_step*.pt.trace.json"))
    assert bool(traces) == (name == "pytorch")
    assert all("aten::addmm" in path.read_text() for path in traces)


def test_a_progress_bar_of_the_users_choice_takes_the_place_of_ours(capsys):
    fit(*MLP, "--trainer.callbacks", "TQDMProgressBar", "--trainer.callbacks.refresh_rate", "20")
    said = capsys.readouterr()
    assert "Epoch 1: 100%" in said.err + said.out
    lines = [line for line in (said.out + said.err).splitlines() if "train loss" in line]
    assert [line.split(":")[0].split("epoch ")[-1] for line in lines] == ["1/2", "2/2"]


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("fit", "limit_train_batches"),
        ("validate", "limit_val_batches"),
        ("test", "limit_test_batches"),
        ("predict", "limit_predict_batches"),
    ],
)
@pytest.mark.parametrize("value", ["0", "0.0"])
def test_no_batches_are_refused(command, option, value, capsys, finished):
    before = () if command == "fit" else ("--run", str(finished(*MLP)))
    assert main([command, *(before or (*DATA, *MLP)), f"--trainer.{option}={value}"]) == 2
    assert f"trainer.{option}` to leave at least one batch to {command}, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("val_check_interval=0", "trainer.val_check_interval` above 0, got 0"),
        (
            "check_val_every_n_epoch=0",
            "trainer.check_val_every_n_epoch` to be at least 1, got 0",
        ),
        ("accumulate_grad_batches=0", "trainer.accumulate_grad_batches` to be at least 1, got 0"),
        ("check_val_every_n_epoch=-1", "to be at least 1, got -1"),
    ],
)
def test_intervals_of_nothing_are_refused(option, words, capsys):
    assert main(["fit", *DATA, *MLP, f"--trainer.{option}"]) == 2
    assert words in capsys.readouterr().err


def test_validations_at_an_interval_of_time():
    run = fit(*MLP, "--trainer.val_check_interval", "00:00:00:00", "--trainer.max_epochs=1")
    assert "val/acc" in json.loads((run / "result.json").read_text())["fit"]["metrics"]


def test_strategies_start_scripts():
    assert script_strategy("ddp_spawn") == script_strategy("ddp_notebook") == script_strategy("ddp_fork") == "ddp"
    assert script_strategy("ddp_fork_find_unused_parameters_true") == "ddp_find_unused_parameters_true"
    assert script_strategy("auto") == "auto"
    assert script_strategy(DDPStrategy(start_method="spawn"))._start_method == "popen"
