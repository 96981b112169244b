"""What the optimizer does with which parameters, and when."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateFinder
from torch import nn
from torch.optim import lr_scheduler

from cifar_lightning.models import CNN, MLP, CNNClassifier, MLPClassifier
from cifar_lightning.optim import Muon


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


@pytest.mark.parametrize("limit", [1.0, 4])
def test_accumulated_batches_make_one_step(make_trainer, data, limit):
    rates = LearningRates()
    model = MLPClassifier(MLP([4]), optimizer=lambda params: torch.optim.SGD(params, lr=1.0), warmup_epochs=1)
    trainer = make_trainer(max_epochs=2, callbacks=[rates], accumulate_grad_batches=3, limit_train_batches=limit)
    trainer.fit(model, data)  # 6 batches an epoch make two steps; of 4 one is the second
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


# ---- schedulers by their class ---------------------------------------------------------------------------------------

# With the arguments that follow from a training of 12 steps at a peak of 0.2.
CLASSES = [
    (lr_scheduler.CosineAnnealingLR, {}, {"T_max": 12}),
    (lr_scheduler.CosineAnnealingLR, {"T_max": 6, "eta_min": 0.01}, {}),
    (lr_scheduler.LinearLR, {"end_factor": 0.5}, {"total_iters": 12}),
    (lr_scheduler.PolynomialLR, {"power": 2.0}, {"total_iters": 12}),
    (lr_scheduler.OneCycleLR, {}, {"max_lr": 0.2, "total_steps": 12}),
    (lr_scheduler.OneCycleLR, {"max_lr": 0.4, "pct_start": 0.5}, {"total_steps": 12}),
    (lr_scheduler.OneCycleLR, {"epochs": 3, "steps_per_epoch": 4}, {"max_lr": 0.2}),
    (lr_scheduler.CyclicLR, {"base_lr": 0.02, "step_size_up": 3}, {"max_lr": 0.2}),
    (lr_scheduler.StepLR, {"step_size": 3}, {}),
    (lr_scheduler.MultiStepLR, {"milestones": [2, 9]}, {}),
    (lr_scheduler.ExponentialLR, {"gamma": 0.9}, {}),
    (lr_scheduler.CosineAnnealingWarmRestarts, {"T_0": 5}, {}),
]


def scheduled(schedule, arguments, **options):
    sgd = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.2, momentum=0.9)}
    return MLPClassifier(MLP([4]), schedule=schedule, schedule_args=arguments, **sgd | options)


def stepped(schedule, arguments, steps=12):
    """The rates of a bare loop."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2, momentum=0.9)
    scheduler, rates = schedule(optimizer, **arguments), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("schedule", "arguments", "filled"), CLASSES)
def test_a_scheduler_class_is_stepped_each_step_and_goes_on(make_trainer, data, schedule, arguments, filled):
    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    first, second = LearningRates(), LearningRates()
    part = make_trainer(max_epochs=3, callbacks=[first, Stop()])
    part.fit(scheduled(schedule, arguments), data)
    part.save_checkpoint("part.ckpt")
    torch.load("part.ckpt", weights_only=True)
    make_trainer(max_epochs=3, callbacks=[second]).fit(scheduled(schedule, arguments), data, ckpt_path="part.ckpt")
    assert len(first.rates) == 4
    assert first.rates + second.rates == pytest.approx(stepped(schedule, arguments | filled), rel=1e-12)


@pytest.mark.parametrize(("schedule", "arguments", "filled"), CLASSES[:6])
def test_a_longer_training_has_another_length(make_trainer, data, schedule, arguments, filled):
    whole = make_trainer(max_epochs=3)
    whole.fit(scheduled(schedule, arguments), data)
    whole.save_checkpoint("whole.ckpt")
    rates = LearningRates()
    longer = make_trainer(max_epochs=5, callbacks=[rates])
    longer.fit(scheduled(schedule, arguments), data, ckpt_path="whole.ckpt")
    filled = {name: 20 if value == 12 else value for name, value in filled.items()}
    assert rates.rates == pytest.approx(stepped(schedule, arguments | filled, 20)[12:], rel=1e-12)


def test_each_group_has_its_own_peak(make_trainer, data):
    options = {"optimizer": lambda params: Muon(params, lr=0.1, head_lr=0.2, bias_lr=0.3)}
    model = scheduled(lr_scheduler.OneCycleLR, {"cycle_momentum": False}, **options)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, data)
    assert [group["max_lr"] for group in trainer.optimizers[0].param_groups] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("schedule", [lr_scheduler.CosineAnnealingLR, lr_scheduler.OneCycleLR])
def test_the_learning_rate_that_was_found_is_the_peak_of_a_class(make_trainer, data, schedule):
    rates = LearningRates()
    finder = LearningRateFinder(min_lr=1e-3, max_lr=0.3, num_training_steps=20, early_stop_threshold=None)
    model = scheduled(schedule, {})
    make_trainer(max_epochs=6, callbacks=[finder, rates]).fit(model, data)
    assert 1e-3 <= model.found_lr <= 0.3
    filled = {"T_max": 24} if schedule is lr_scheduler.CosineAnnealingLR else {"max_lr": 0.2, "total_steps": 24}
    expected = [rate * model.found_lr / 0.2 for rate in stepped(schedule, filled, 24)]
    assert rates.rates[-24:] == pytest.approx(expected)  # after those of the search


def test_a_peak_that_is_given_cannot_be_found(make_trainer, data):
    model = scheduled(lr_scheduler.OneCycleLR, {"max_lr": 0.1})
    with pytest.raises(ValueError, match=r"Expected no `max_lr` in `model\.schedule_args` with LearningRateFinder"):
        make_trainer(max_epochs=3, callbacks=[LearningRateFinder()]).fit(model, data)


def test_a_class_without_a_length_goes_on_without_an_end(make_trainer, data):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step >= 6

    rates = LearningRates()
    model = scheduled(lr_scheduler.StepLR, {"step_size": 3, "gamma": 0.5})
    make_trainer(max_epochs=-1, callbacks=[rates, Stop()]).fit(model, data)
    assert rates.rates[:6] == pytest.approx([0.2] * 3 + [0.1] * 3)
    with pytest.raises(ValueError, match=r"for `model\.schedule: CosineAnnealingLR`.*got neither"):
        make_trainer(max_epochs=-1).fit(scheduled(lr_scheduler.CosineAnnealingLR, {}), data)


def test_a_length_that_is_too_short_is_refused_at_the_start(make_trainer, data):
    model = scheduled(lr_scheduler.OneCycleLR, {"total_steps": 11})
    with pytest.raises(ValueError, match=r"at least the 12 steps of the training in `model\.schedule_args`, got 11"):
        make_trainer(max_epochs=3).fit(model, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"schedule": "cosin"},
            "`model.schedule` to be one of constant, linear, cosine, or a scheduler class, got cos",
        ),
        ({"schedule": "linear", "schedule_args": {"T_max": 3}}, "`model.schedule` to be a class for `model.schedule_"),
        (
            {"schedule": lr_scheduler.StepLR, "warmup_epochs": 1.0},
            "Expected no `model.warmup_epochs` with the class StepLR for `model.schedule`, got 1.0. Use",
        ),
        ({"schedule": lr_scheduler.StepLR}, "arguments of StepLR in `model.schedule_args`, got: StepLR.__init__() mi"),
        (
            {"schedule": lr_scheduler.OneCycleLR, "schedule_args": {"max_rl": 0.1}},
            "Expected valid arguments of OneCycleLR in `model.schedule_args`, got: OneCycleLR.__init__() got an "
            "unexpected keyword argument 'max_rl'.",
        ),
        (
            {"schedule": lr_scheduler.OneCycleLR, "optimizer": lambda params: torch.optim.SGD(params, lr=-1.0)},
            "Expected valid arguments in `model.optimizer`, got: Invalid learning rate: -1.0.",
        ),
        ({"schedule": lr_scheduler.ReduceLROnPlateau}, "to depend on the step alone, got ReduceLROnPlateau, which"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(options, message):
    with pytest.raises(ValueError, match="Expected") as caught:
        MLPClassifier(MLP([4]), **options)
    assert message in str(caught.value)
