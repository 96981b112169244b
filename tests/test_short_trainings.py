"""Options that make short trainings better: parts that freeze, and averages of the weights."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from test_ddp import TWO, command
from tiny import CNN as TINY_CNN
from tiny import DATA
from torch.utils.flop_counter import FlopCounterMode

from cifar_lightning.__main__ import main
from cifar_lightning.callbacks.lookahead import Lookahead
from cifar_lightning.models import CNN, MLP, CNNClassifier, MLPClassifier
from cifar_lightning.optim import Muon


class States(Callback):
    """Keep the weights after each optimizer step."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.states.append({name: value.clone() for name, value in pl_module.net.state_dict().items()})


def train(make_trainer, data, *callbacks: Callback, epochs: int = 3, **options) -> list[dict[str, torch.Tensor]]:
    """Return the weights after each of four steps an epoch."""
    torch.manual_seed(0)
    states = States()
    net = CNN([8, 8], [1, 1], whiten_px=2, whiten_bias=True)
    model = CNNClassifier(net, optimizer=lambda params: Muon(params, bias_lr=1.0), **options)
    make_trainer(max_epochs=epochs, callbacks=[*callbacks, states]).fit(model, data)
    return states.states


def test_a_part_is_trained_until_it_freezes(make_trainer, data):
    states = train(make_trainer, data, freeze_epochs={"whiten": 0.5, "stages.0": 1.5})
    plain = train(make_trainer, data)
    assert len(states) == 12
    moves = [
        {name for name, value in after.items() if not torch.equal(value, before[name])}
        for before, after in pairwise(states)
    ]
    assert "whiten.0.bias" in moves[0]
    assert not any("whiten.0.bias" in moved for moved in moves[1:])
    weight = "stages.0.down.0.weight"
    assert [weight in moved for moved in moves] == [step < 6 for step in range(1, 12)]
    assert all("stages.1.down.0.weight" in moved for moved in moves)
    # Statistics of normalisations go on.
    assert all(any("stages.0" in name and "running_mean" in name for name in moved) for moved in moves)
    assert not torch.equal(states[1]["whiten.0.bias"], plain[1]["whiten.0.bias"])  # the rate has fallen already
    assert torch.equal(states[0][weight], plain[0][weight])


def test_no_gradient_is_computed_for_what_is_frozen(make_trainer, data):
    class Flops(Callback):
        def __init__(self) -> None:
            self.counts: list[int] = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.counter = FlopCounterMode(display=False)
            self.counter.__enter__()

        def on_after_backward(self, trainer, pl_module):
            self.counter.__exit__(None, None, None)
            self.counts.append(self.counter.get_total_flops())

    flops = Flops()
    train(make_trainer, data, flops, epochs=1, freeze_epochs={"whiten": 0.25, "stages.0": 0.75})
    first, second, third, last = flops.counts
    assert first > second == third > last


@pytest.mark.parametrize(("every", "last_epochs", "due"), [(5, None, (2, 7, 12)), (3, 1.5, (6, 9, 12))])
def test_lookahead_goes_on_from_the_average(make_trainer, data, every, last_epochs, due):
    before, after = States(), States()
    lookahead = Lookahead(every, 0.25, last_epochs)
    torch.manual_seed(0)
    model = MLPClassifier(MLP([8]), optimizer=lambda params: torch.optim.SGD(params, lr=0.1))
    make_trainer(max_epochs=3, callbacks=[before, lookahead, after]).fit(model, data)
    slow = None
    for step, (fast, found) in enumerate(zip(before.states, after.states, strict=True), 1):
        if step not in due:
            assert all(torch.equal(value, fast[name]) for name, value in found.items())
            continue
        slow = (
            fast
            if slow is None
            else {
                name: old + 0.25 * (fast[name] - old) if old.is_floating_point() else fast[name]
                for name, old in slow.items()
            }
        )
        for name, value in found.items():
            torch.testing.assert_close(value, slow[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_steps": 0}, "`every_n_steps` of Lookahead to be at least 1, got 0"),
        ({"alpha": 0.0}, r"`alpha` of Lookahead in \(0, 1\], got 0"),
        ({"last_epochs": 0.0}, "`last_epochs` of Lookahead above 0 or null, got 0"),
    ],
)
def test_lookahead_checks_its_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Lookahead(**arguments)


def test_lookahead_needs_an_end(make_trainer, data):
    model = MLPClassifier(MLP([8]), schedule="constant")
    trainer = make_trainer(max_epochs=-1, max_time={"seconds": 20}, callbacks=[Lookahead()])
    with pytest.raises(ValueError, match=r"`trainer.max_epochs` or `trainer.max_steps` for Lookahead, got neither"):
        trainer.fit(model, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_epochs": {"stage": 1.0}}, "to name parts of the network, of whiten, whiten.0, .*, got stage"),
        ({"freeze_epochs": {"whiten": 0.0}}, "Expected an epoch above 0 for whiten in `model.freeze_epochs`, got 0"),
        ({"cooldown_epochs": -1.0}, "Expected `model.cooldown_epochs` to be at least 0 epochs, got -1"),
        (
            {"freeze_epochs": {"whiten": 1.0}, "schedule": torch.optim.lr_scheduler.OneCycleLR},
            "Expected no `model.freeze_epochs` with the class OneCycleLR",
        ),
    ],
)
def test_what_cannot_be_scheduled(options, message):
    with pytest.raises(ValueError, match=message):
        CNNClassifier(CNN([8], whiten_px=2, whiten_bias=True), **options)


def test_a_bias_of_the_whitening_needs_a_whitening():
    with pytest.raises(ValueError, match=r"Expected `model.net.whiten_px` above 0 for `model.net.whiten_bias`, got 0"):
        CNN([8], whiten_bias=True)


FREEZING = (
    "--model.net.whiten_px=2",
    "--model.net.whiten_bias=true",
    '--model.freeze_epochs={"whiten": 0.4, "stages.0": 1}',
)
SIZED = (*TINY_CNN, *FREEZING, "--model.net.depths=[1, 1]", "--data.image_sizes=[20, 32]")


def expected_flops() -> tuple[int, int]:
    """The FLOPs of 500 images of 20 and 500 of 32 pixels, whole and executed, by hand."""
    layers = {  # both convolutions come before a pooling, which drops the last of 19, 9, 31 and 15 rows
        20: (24 * 3 * 4 * 19**2, 24 * 8 * 9 * 18**2, 8 * 8 * 9 * 8**2, 80),
        32: (24 * 3 * 4 * 31**2, 24 * 8 * 9 * 30**2, 8 * 8 * 9 * 14**2, 80),
    }
    counted = sum(6 * 500 * sum(of_size) for of_size in layers.values())
    whiten, first, second, head = layers[20]
    executed = 2 * (200 * (whiten + 3 * (first + second + head)) + 300 * (whiten + 2 * first + 3 * (second + head)))
    whiten, first, second, head = layers[32]
    return counted, executed + 2 * 500 * (whiten + first + 2 * second + 3 * head)


def test_the_flops_of_a_training_are_those_counted_by_hand(finished):
    result = json.loads((finished(*SIZED) / "result.json").read_text())
    assert (result["fit"]["training_flops"], result["fit"]["executed_flops"]) == expected_flops()
    assert result["depth"] == 3  # a layer that is frozen was trained


def test_the_flops_of_a_training_in_two_parts_are_those_of_the_whole():
    asked_to_end = (f"--trainer.callbacks.{option}" for option in ("number=15", "after=7"))
    words = ["fit", *DATA, *SIZED, "--version=part", "--trainer.callbacks=stopping.Signal", *asked_to_end]
    assert main(words) == 143
    (folder,) = Path("lightning_logs").glob("*/part")
    assert main(["fit", "--run", str(folder)]) == 0
    entry = json.loads((folder / "result.json").read_text())["fit"]
    assert (entry["training_flops"], entry["executed_flops"]) == expected_flops()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_freeze_as_one_does():
    """They exchange all gradients, and a rate of zero stops the part."""
    net = ("--model=MLPClassifier", "--model.net.widths=[16]", "--model.net.norm=none", "--model.net.dropout=0")
    options = (*net, '--model.freeze_epochs={"hidden": 1}', "--trainer.max_epochs=2")
    main(["fit", *DATA, *options, "--version=one", "--data.batch_size=100"])
    command("fit", *DATA, *options, "--version=two", "--data.batch_size=50", *TWO)
    states = [
        torch.load(f"lightning_logs/mlp/{version}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for version in ("one", "two")
    ]
    for name, weights in states[0].items():
        torch.testing.assert_close(states[1][name], weights, rtol=0, atol=2e-4)
