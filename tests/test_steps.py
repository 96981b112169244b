"""An optimizer step takes the same images however it is cut into batches and shared between processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_ddp import TWO, command
from tiny import DATA

from cifar_lightning.__main__ import main
from cifar_lightning.data.loader import BatchLoader

IMAGES_PER_STEP = 96
CUTS = [(1, 1), (4, 1), (8, 1), (1, 2), (4, 2)]
"""Batches that a process makes of a step, and processes."""
ALONE = CUTS[:3]
NET = ("--model=CNNClassifier", "--model.net.widths=[8, 16]", "--model.net.norm=group", "--model.net.pooling=average")


def train(cuts: int, processes: int) -> Path:
    """Train for twenty steps, five per epoch, the last of 95 images, and return the run folder."""
    version = f"{cuts}-{processes}"
    words = [
        *("fit", *DATA, *NET, "--trainer.max_epochs=4", "--trainer.precision=32-true"),
        *("--trainer.callbacks=recording.RecordSteps", "--data.synthetic_train=579"),
        *(f"--data.batch_size={IMAGES_PER_STEP // (cuts * processes)}", f"--data.images_per_step={IMAGES_PER_STEP}"),
        *("--name=steps", f"--version={version}"),
    ]
    if processes == 1:
        assert main(words) == 0
    else:
        command(*words, *TWO)
    return Path("lightning_logs/steps") / version


def images_of_steps(processes: int) -> list[list[int]]:
    """Return the images of each optimizer step of the training that ran last, from all processes."""
    seen = [torch.load(f"steps-{rank}.pt", weights_only=True) for rank in range(processes)]
    return [sorted(torch.cat(shares).tolist()) for shares in zip(*seen, strict=True)]


@pytest.mark.timeout(900)  # processes of their own start slowly on a busy machine
@pytest.mark.parametrize("ways", [ALONE, pytest.param([ALONE[0], CUTS[4]], marks=pytest.mark.slow)], ids=str)
def test_images_and_weights_depend_neither_on_batches_nor_on_processes(ways):
    """Without batch statistics and dropout; sums in another order differ in the last bits."""
    steps, states = [], []
    for cuts, processes in ways:
        run = train(cuts, processes)
        steps.append(images_of_steps(processes))
        states.append(torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    assert sorted(map(len, steps[0])) == [IMAGES_PER_STEP - 1] * 4 + [IMAGES_PER_STEP] * 16
    assert all(found == steps[0] for found in steps[1:])
    for state in states[1:]:
        for name, weights in states[0].items():
            torch.testing.assert_close(state[name], weights, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("cuts", "processes"), CUTS[1:])
@pytest.mark.parametrize("n", [599, 600, 101])
def test_images_of_steps_that_do_not_divide_evenly(n, cuts, processes):
    """The last step of an epoch is like the others, and all have as many batches."""
    images, labels = torch.zeros(n, 3, 32, 32, dtype=torch.uint8), torch.zeros(n, dtype=torch.int64)

    def steps(cuts: int, processes: int) -> list[list[int]]:
        found: list[list[int]] = []
        for rank in range(processes):
            batch_size = IMAGES_PER_STEP // (cuts * processes)
            options = {"shuffle": True, "rank": rank, "world_size": processes, "accumulate": cuts}
            loader = BatchLoader(images, labels, batch_size, **options)
            assert len(loader) % cuts == 0
            for i, batch in enumerate(loader):
                if i // cuts == len(found):
                    found.append([])
                found[i // cuts] += batch.indices.tolist()
        return [sorted(step) for step in found]

    expected = steps(1, 1)
    assert max(map(len, expected)) - min(map(len, expected)) <= 1
    assert steps(cuts, processes) == expected


def test_what_a_step_is_made_of_is_said_once(capsys):
    train(4, 1)
    assert capsys.readouterr().err.count("Optimizer step: 96 images, in 4 x 1 batches of 24.") == 1
