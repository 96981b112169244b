"""An error of a library that an option causes is one message with the option; programming errors keep tracebacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.progress import rich_progress
from tiny import DATA, MLP

from cifar_lightning.__main__ import main
from cifar_lightning.library_errors import blamed_object, configured_classes

OWN = """
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping

class Broken(Callback):
    def on_train_start(self, trainer, pl_module):
        torch.zeros(2) @ torch.zeros(3)

class BrokenToMake(Callback):
    def __init__(self, length: int = 1):
        torch.zeros(2) @ torch.zeros(length)

class Stopping(EarlyStopping):
    pass
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module of the user's own, with callbacks that a configuration may name."""
    (tmp_path / "own_callbacks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_callbacks", None)


def message(capsys, *args: str) -> str:
    """The one message that a training with these options ends in."""
    assert main(["fit", *DATA, *MLP, *args]) == 2
    errors = [line for line in capsys.readouterr().err.split("error: ")[1:]]
    assert len(errors) == 1
    assert errors[0].count("\n") == 1, errors[0]
    return errors[0].replace("`--", "`")  # options of the command line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--model.optimizer torch.optim.SparseAdam", ["`model.optimizer` torch.optim.SparseAdam", "dense gradients"]),
        ("--model.optimizer torch.optim.Muon", ["`model.optimizer` torch.optim.Muon", "only supports 2D parameters"]),
        (
            "--model.schedule torch.optim.lr_scheduler.StepLR --model.schedule_args.step_size 0",
            ["`model.schedule` torch.optim.lr_scheduler.StepLR", "ZeroDivisionError"],
        ),
        (
            "--trainer.callbacks EarlyStopping --trainer.callbacks.monitor val_loss",
            ["`trainer.callbacks` EarlyStopping", "metric `val_loss`", "nearest metric is `val/loss`"],
        ),
        (
            "--trainer.callbacks StochasticWeightAveraging --trainer.callbacks.swa_lrs -1",
            ["`trainer.callbacks` StochasticWeightAveraging", "positive float"],
        ),
        (
            "--trainer.callbacks Timer --trainer.callbacks.duration x",
            ["`trainer.callbacks` Timer", "DD:HH:MM:SS"],
        ),
        (
            "--trainer.callbacks ModelPruning --trainer.callbacks.pruning_fn nonsense",
            ["`trainer.callbacks` ModelPruning", "nonsense"],
        ),
        ("--model.optimizer torch.optim.Adam --model.optimizer.betas [2,2]", ["`model.optimizer`", "beta parameter"]),
    ],
)
def test_the_message_names_the_option(options, words, capsys):
    said = message(capsys, *options.split(" "))
    for word in words:
        assert word in said


def test_a_package_that_is_not_installed_is_named_with_its_option(monkeypatch, capsys):
    monkeypatch.setattr(rich_progress, "_RICH_AVAILABLE", False)
    said = message(capsys, "--trainer.callbacks", "RichProgressBar")
    assert "`trainer.callbacks` RichProgressBar" in said
    assert "pip install -U rich" in said


def test_callbacks_still_see_the_error(capsys):
    message(capsys, "--model.optimizer", "torch.optim.SparseAdam")
    (path,) = Path("lightning_logs").glob("*/*/result.json")
    result = json.loads(path.read_text())
    assert result["status"] == "failed"
    assert "SparseAdam does not support dense gradients" in result["error"]


def test_debug_shows_where_it_comes_from():
    with pytest.raises(ValueError, match=r"`model.optimizer` torch.optim.SparseAdam") as raised:
        main(["fit", *DATA, *MLP, "--model.optimizer", "torch.optim.SparseAdam", "--debug"])
    assert isinstance(raised.value.__cause__, RuntimeError)


@pytest.mark.parametrize("name", ["Broken", "BrokenToMake"])
def test_an_error_in_the_users_own_class_keeps_its_traceback(name, own_module):
    with pytest.raises(RuntimeError, match="size"):
        main(["fit", *DATA, *MLP, "--trainer.callbacks", f"own_callbacks.{name}"])


def test_a_class_of_the_users_own_is_not_blamed_for_its_base(own_module):
    callback = ("--trainer.callbacks", "own_callbacks.Stopping", "--trainer.callbacks.monitor", "val_loss")
    with pytest.raises(RuntimeError, match="conditioned on metric `val_loss`"):
        main(["fit", *DATA, *MLP, *callback])


@pytest.mark.slow
def test_without_a_compiler(tmp_path):
    environment = os.environ | {"CXX": "/nonexistent/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    args = [sys.executable, "-m", "cifar_lightning", "fit", *DATA, *MLP, "--model.compile=true"]
    done = subprocess.run(args, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 2, done.stderr
    assert "model.compile` to compile the network" in done.stderr
    assert "--model.compile false" in done.stderr
    assert "Traceback" not in done.stderr


def test_classes_are_found_with_their_options():
    def given(path: str) -> Namespace:
        return Namespace(class_path=path, init_args=Namespace())

    timer = given("lightning.pytorch.callbacks.Timer")
    model = Namespace(class_path="cifar_lightning.models.MLPClassifier", init_args=Namespace())
    model.init_args.optimizer = given("torch.optim.Adam")
    config = Namespace(model=model, trainer=Namespace(callbacks=[timer, timer], logger=None))
    assert configured_classes(config) == {
        EarlyStopping: "`early_stopping`",
        torch.optim.Adam: "`model.optimizer` torch.optim.Adam",
        Timer: "`trainer.callbacks` Timer",
    }


def test_what_an_optimizer_calls_back_is_not_its_error():
    def closure() -> float:
        raise RuntimeError("of the training step")

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    classes = {torch.optim.SGD: "`model.optimizer` torch.optim.SGD"}
    with pytest.raises(RuntimeError) as raised:
        optimizer.step(closure)
    assert blamed_object(raised.value, classes) is None
    with pytest.raises(TypeError) as raised:
        optimizer.step(1)
    assert blamed_object(raised.value, classes) == (optimizer, classes[torch.optim.SGD])
