"""Numbers that go wrong end a training before they spoil it, or are left out and counted."""

import json
import re
from pathlib import Path

import pytest
import torch
from tiny import CNN, DATA, MLP

from cifar_lightning.__main__ import main
from cifar_lightning.callbacks.finite import not_finite_gradients

RUN = Path("lightning_logs/run/one")
POISON = "--trainer.callbacks=stopping.Poison"
NAN_LOSS = (POISON, "--trainer.callbacks.what=loss", "--trainer.callbacks.value=nan")


def train(*args, status=0):
    named = ("--name", "run", "--version", "one")
    assert main(["fit", *DATA, "--trainer.max_epochs=3", *named, *args]) == status


def weights(name="last"):
    return torch.load(RUN / f"checkpoints/{name}.ckpt", weights_only=True)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("net", [MLP, CNN], ids=["mlp", "cnn"])
def test_the_training_ends_there_and_says_where(net, what, value, capsys):
    steps = f"--trainer.callbacks.steps=[{7 if what == 'loss' else 10}]"  # gradients are looked at after every 10
    train(*net, POISON, f"--trainer.callbacks.what={what}", f"--trainer.callbacks.value={value}", steps, status=2)
    said = capsys.readouterr().err
    (message,) = [line for line in said.splitlines() if line.startswith("error:")]
    name = "hidden.0.0.weight" if net is MLP else "stages.0.down.0.weight"
    cause = "the loss, though all layers are finite now" if what == "loss" else f"gradients of {name}"
    place = "step 8 (epoch 2)" if what == "loss" else "step 11 (epoch 3)"
    assert cause in message
    assert re.search(rf"at {re.escape(place)}, learning rate 0\.\d+\. The checkpoints are unchanged", message)
    result = json.loads((RUN / "result.json").read_text())
    assert (result["status"], result["diverged"]) == ("failed", True)
    assert cause in result["error"]
    assert weights()["epoch"] == (0 if what == "loss" else 1)
    assert all(tensor.isfinite().all() for tensor in weights()["state_dict"].values())


def test_a_rate_that_is_far_too_high_names_a_layer(capsys):
    train(*MLP, "--model.net.norm=none", "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1e30", status=2)
    place = r"in the loss, first in the logits, at step 2 \(epoch 1\), learning rate 9\.333e\+29"
    assert re.search(place, capsys.readouterr().err)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_are_left_out_up_to_a_limit_and_counted(accumulate, capsys):
    common = (*CNN, f"--trainer.accumulate_grad_batches={accumulate}")
    poison = (
        POISON,
        "--trainer.callbacks.what=loss",
        "--trainer.callbacks.value=nan",
        "--trainer.callbacks.steps=[2, 3]",
    )
    train(*common, *poison, "--finite.skip_steps=2")
    assert json.loads((RUN / "result.json").read_text())["fit"]["skipped_steps"] == 2
    assert "2 of 2 steps skipped so far" in capsys.readouterr().err
    assert all(tensor.isfinite().all() for tensor in weights()["state_dict"].values())
    train(*common, *poison, "--finite.skip_steps=1", "--version=two", status=2)
    assert "1 steps were skipped before." in capsys.readouterr().err


def test_a_step_that_is_left_out_moves_nothing():
    first = (*CNN, "--trainer.max_epochs=1", "--trainer.max_steps=1")
    train(*first, *NAN_LOSS, "--trainer.callbacks.steps=[0]", "--finite.skip_steps=1")
    after = weights()["state_dict"]
    train(*first, "--version=two", "--model.optimizer.lr=0")
    before = torch.load("lightning_logs/run/two/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for name, tensor in before.items():
        if name.endswith(statistics):  # as they were before the first step
            start = 1 if name.endswith("var") else 0
            assert (after[name] == start).all(), name
        else:
            assert torch.equal(after[name], tensor), name


def test_looking_changes_nothing_and_can_be_turned_off():
    train(*CNN)
    looked = weights()["state_dict"]
    train(*CNN, "--finite.every_n_steps=0", "--version=two")
    other = torch.load("lightning_logs/run/two/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, other[name]) for name, tensor in looked.items())


def test_gradients_that_are_not_finite_are_named():
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    assert not_finite_gradients(net) == []
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert not_finite_gradients(net) == []
    net[0].bias.grad[1] = float("nan")
    net[1].weight.grad[0, 2] = -float("inf")
    assert not_finite_gradients(net) == ["0.bias", "1.weight"]


@pytest.mark.parametrize("wrong", ["every_n_steps", "skip_steps"])
def test_numbers_below_zero(wrong, capsys):
    train(*MLP, f"--finite.{wrong}=-1", status=2)
    assert (
        "Expected `finite.every_n_steps` and `finite.skip_steps` to be at least 0"
        in capsys.readouterr().err.replace("`--", "`")
    )
    assert not RUN.exists()
