"""What the optimizer does with which parameters, and when."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from cifar_lightning.models import CNN, MLP, CNNClassifier, MLPClassifier


class LearningRates(Callback):
    """Notes the rate of each update."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == 1
        self.rates.extend(rates)


@pytest.mark.parametrize(
    ("schedule", "warmup_epochs"), [("linear", 0), ("linear", 0.5), ("cosine", 1), ("constant", 2)]
)
def test_the_learning_rate_of_every_step(make_trainer, data, schedule, warmup_epochs):
    rates = LearningRates()
    model = MLPClassifier(
        MLP([4]),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.2),
        schedule=schedule,
        warmup_epochs=warmup_epochs,
        final_lr_ratio=0.1,
    )
    trainer = make_trainer(max_epochs=3, callbacks=[rates])
    trainer.fit(model, data)
    warmup = int(4 * warmup_epochs)
    expected = [0.2 * (step + 1) / warmup for step in range(warmup)]
    for step in range(12 - warmup):
        way = step / (12 - warmup)
        fall = {"linear": way, "cosine": (1 - math.cos(math.pi * way)) / 2, "constant": 0}[schedule]
        expected.append(0.2 - 0.18 * fall)
    assert rates.rates == pytest.approx(expected)
    # After the last update the schedule has arrived.
    (end,) = {group["lr"] for group in trainer.optimizers[0].param_groups}
    assert end == pytest.approx(0.2 if schedule == "constant" else 0.02)


@pytest.mark.parametrize(("warmup_epochs", "longer"), [(2, False), (3, True)])
def test_a_warm_up_longer_than_the_training_is_told(make_trainer, data, caplog, warmup_epochs, longer):
    make_trainer(max_epochs=2).fit(MLPClassifier(MLP([4]), warmup_epochs=warmup_epochs), data)
    assert (f"The warm-up of {warmup_epochs} epochs is longer than the training" in caplog.text) is longer


def test_accumulated_batches_make_one_step(make_trainer, data):
    rates = LearningRates()
    model = MLPClassifier(MLP([4]), optimizer=lambda params: torch.optim.SGD(params, lr=1.0), warmup_epochs=1)
    trainer = make_trainer(max_epochs=2, callbacks=[rates], accumulate_grad_batches=3)
    trainer.fit(model, data)  # 4 batches an epoch: a step of three, and one of what is left
    assert rates.rates == pytest.approx([0.5, 1.0, 1.0, 0.5])
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0


def test_gradients_that_add_up_stay_where_they_are(make_trainer, data):
    places, keep = [], []

    class Places(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            places.append(pl_module.net.head.weight.grad.data_ptr())

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            keep.append(torch.empty(8 * 10))  # takes the place of a gradient that was let go

    make_trainer(max_epochs=1, accumulate_grad_batches=2, callbacks=[Places()]).fit(
        MLPClassifier(MLP([8])), datamodule=data
    )
    assert len(places) == 2
    assert len(set(places)) == 1


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_schedule_that_falls_needs_an_end(make_trainer, data, schedule):
    message = rf"`trainer\.max_epochs` or `trainer\.max_steps` for `model\.schedule: {schedule}`.*got neither"
    with pytest.raises(ValueError, match=message):
        make_trainer(max_epochs=-1).fit(MLPClassifier(MLP([4]), schedule=schedule), data)


def test_constant_goes_on_without_an_end(make_trainer, data):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step >= 6

    rates = LearningRates()
    model = MLPClassifier(MLP([4]), schedule="constant", warmup_epochs=0.5)
    make_trainer(max_epochs=-1, callbacks=[rates, Stop()]).fit(model, data)
    assert rates.rates == pytest.approx([0.05] + [0.1] * (len(rates.rates) - 1))
    assert len(rates.rates) >= 6


def test_a_training_may_end_after_steps(make_trainer, data):
    rates = LearningRates()
    model = MLPClassifier(MLP([4]), optimizer=lambda params: torch.optim.SGD(params, lr=1.0), warmup_epochs=0.5)
    make_trainer(max_steps=6, callbacks=[rates]).fit(model, data)  # which sets no limit to the epochs
    assert rates.rates == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_weights_alone_decay(make_trainer, data):
    model = CNNClassifier(CNN([4]), optimizer=lambda params: torch.optim.SGD(params, lr=0.1, weight_decay=0.01))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, data)
    decays = {p: group["weight_decay"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert decays.keys() == set(model.parameters())
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            is_weight = isinstance(module, nn.Linear | nn.Conv2d) and parameter is module.weight
            assert decays[parameter] == (0.01 if is_weight else 0)
