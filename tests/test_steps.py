"""An optimizer step takes the same images however it is cut into batches and shared between processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_ddp import TWO, command
from tiny import BARE, DATA

from cifar_lightning.__main__ import main

pytestmark = pytest.mark.timeout(900)  # processes of their own start slowly on a busy machine

STEP_IMAGES = 96
CUTS = [(1, 1), (4, 1), (8, 1), (1, 2), (4, 2)]
"""Batches that a process makes of a step, and processes."""
NET = (
    "--model",
    "CNNClassifier",
    "--model.net.widths",
    "[8, 16]",
    "--model.net.norm",
    "group",
    "--model.net.dropout",
    "0",
)


def train(train_images: int, cuts: int, processes: int) -> Path:
    """Train for four epochs and return the run folder."""
    batch_size = STEP_IMAGES // (cuts * processes)
    words = [
        *("fit", *DATA, *BARE, *NET, "--trainer.max_epochs=4", "--trainer.precision=32-true"),
        *("--trainer.callbacks=recording.RecordSteps", f"--data.synthetic_train={train_images + 100}"),
        *(f"--data.batch_size={batch_size}", f"--trainer.accumulate_grad_batches={cuts}"),
        *("--name=steps", f"--version={train_images}-{cuts}-{processes}"),
    ]
    if processes == 1:
        assert main(words) == 0
    else:
        command(*words, *TWO)
    return Path("lightning_logs/steps") / words[-1].partition("=")[2]


def images_of_steps(processes: int) -> list[list[int]]:
    """Return the images of each optimizer step of the training that ran last, from all processes."""
    seen = [torch.load(f"steps-{rank}.pt", weights_only=True) for rank in range(processes)]
    return [sorted(torch.cat(shares).tolist()) for shares in zip(*seen, strict=True)]


@pytest.mark.parametrize(
    "train_images",
    [480, pytest.param(599, marks=pytest.mark.xfail(reason="batches are cut without regard to steps"))],
)
def test_the_images_of_a_step_depend_neither_on_batches_nor_on_processes(train_images):
    """Neither 599 images nor their batches divide evenly; the last step of an epoch is like the others."""
    steps = []
    for cuts, processes in CUTS:
        train(train_images, cuts, processes)
        steps.append(images_of_steps(processes))
    assert len(steps[0]) == 4 * -(-train_images // STEP_IMAGES)
    assert max(map(len, steps[0])) - min(map(len, steps[0])) <= 1
    assert all(found == steps[0] for found in steps[1:])


def test_the_weights_depend_neither_on_batches_nor_on_processes():
    """Without batch statistics and dropout; sums in another order differ in the last bits."""
    states = []
    for cuts, processes in CUTS:
        run = train(480, cuts, processes)
        checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == 20
        states.append(checkpoint["state_dict"])
    for state in states[1:]:
        for name, weights in states[0].items():
            torch.testing.assert_close(state[name], weights, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
