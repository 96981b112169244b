"""Asked to end in the middle of an epoch, a training goes on as if nothing had been."""

import json
import signal
from pathlib import Path

import pytest
import torch
from faults.training import DATA, KINDS, remains
from tiny import BARE

from cifar_lightning.__main__ import main

LIGHT = [kind for kind in KINDS if kind not in ("cnn-two-processes", "cnn-compiled")]


def train(kind, version, *more, status=0):
    assert main(["fit", *DATA, *KINDS[kind], *BARE, "--name", kind, "--version", version, *more]) == status


def signalled(number, after, kind):
    """Options that add a signal to the callbacks that the kind has."""
    own = "--trainer.callbacks+=" if any("callbacks" in option for option in KINDS[kind]) else "--trainer.callbacks="
    return [f"{own}stopping.Signal", f"--trainer.callbacks.number={int(number)}", f"--trainer.callbacks.after={after}"]


@pytest.fixture(scope="module")
def undisturbed():
    """What is left of a training of a kind that nobody disturbs; made once, where the first test asks for it."""
    known = {}

    def of(kind, *more):
        if (kind, more) not in known:
            train(kind, "whole", *more)
            known[kind, more] = remains(Path(f"lightning_logs/{kind}/whole"))
        return known[kind, more]

    return of


# Of 10 batches an epoch: the first, one in the middle of each kind, and the last ones of an epoch and of the training.
@pytest.mark.parametrize(
    ("kind", "after"),
    [
        *[("cnn", 1), ("cnn", 20), ("cnn", 40), pytest.param("cnn", 13, marks=pytest.mark.slow)],
        *((kind, 13) for kind in LIGHT if kind != "cnn"),
    ],
)
def test_asked_to_end_and_started_again_equals_never_stopped(undisturbed, kind, after, capsys):
    drawing = ("--figures.every_n_epochs=2", "--layers.every_n_steps=1") if (kind, after) == ("cnn", 13) else ()
    expected = undisturbed(kind, *drawing)
    train(kind, "part", *drawing, *signalled(signal.SIGTERM, after, kind), status=0 if after == 40 else 143)
    run = Path(f"lightning_logs/{kind}/part")
    if after < 40:
        result = json.loads((run / "result.json").read_text())
        assert result["status"] == "interrupted"
        assert result["error"].startswith("SIGTERM after step ")
        assert f"Go on with: fit --run {run}" in capsys.readouterr().err
        saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
        every = 2 if kind in ("cnn-muon", "cnn-short") else 1
        assert saved["global_step"] == -(-after // every)
        assert main(["fit", "--run", str(run)]) == 0
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    found = remains(run)
    for what, value in expected.items():
        assert found[what] == value, what


def test_ctrl_c_is_answered_alike(capsys):
    train("mlp", "part", *signalled(signal.SIGINT, 5, "mlp"), status=130)
    assert json.loads(Path("lightning_logs/mlp/part/result.json").read_text())["error"].startswith(
        "SIGINT after step 5"
    )


def test_signals_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    train("mlp", "whole", "--trainer.max_epochs=1")
    train("mlp", "part", *signalled(signal.SIGTERM, 5, "mlp"), status=143)
    train("mlp", "failed", "--trainer.callbacks=stopping.Fail", "--trainer.max_epochs=1", status=2)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_checkpoints_inside_an_epoch_change_nothing(undisturbed):
    train("mlp", "part", "--checkpoint_every_n_steps=3")
    assert remains(Path("lightning_logs/mlp/part")) == undisturbed("mlp")


def test_another_number_of_batches_cannot_continue_inside_an_epoch(capsys):
    train("mlp", "part", *signalled(signal.SIGTERM, 13, "mlp"), status=143)
    assert main(["fit", "--run", "lightning_logs/mlp/part", "--data.batch_size=100"]) == 2
    assert "Expected 10 batches per epoch, because the checkpoint was made inside one, got 5" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_starts_again(undisturbed):
    train("mlp", "part", *signalled(signal.SIGTERM, 1, "mlp"), status=143)
    Path("lightning_logs/mlp/part/checkpoints/last.ckpt").unlink()
    assert main(["fit", "--run", "lightning_logs/mlp/part", "--trainer.callbacks=null"]) == 0
    assert remains(Path("lightning_logs/mlp/part")) == undisturbed("mlp")


@pytest.mark.parametrize("after", [11, pytest.param(19, marks=pytest.mark.slow)])
def test_a_crash_in_a_callback_costs_the_epoch_at_hand_and_nothing_else(after):
    norms = "--layers.every_n_steps=1"
    crash = ("--trainer.callbacks=stopping.Fail", f"--trainer.callbacks.after={after}")
    train("cnn", "whole", norms)
    train("cnn", "part", norms, *crash, status=2)
    run = Path("lightning_logs/cnn/part")
    assert json.loads((run / "result.json").read_text())["status"] == "failed"
    assert main(["fit", "--run", str(run), "--trainer.callbacks=null"]) == 0
    assert remains(run) == remains(Path("lightning_logs/cnn/whole"))
