from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as transforms
from lightning.pytorch import Callback
from torch import nn

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models import CNN, MLP, CNNClassifier, ImageClassifier, MLPClassifier, ResNet, ResNetClassifier
from cifar_lightning.models.classifier import CIFAR10_MEAN, CIFAR10_STD
from cifar_lightning.models.tta import tta_logits
from cifar_lightning.runs import check_checkpoint

SMALL = {
    MLPClassifier: lambda: MLP([8], activation="tanh", norm="layer", dropout=0.25),
    CNNClassifier: lambda: CNN([8, 4], [1, 2], kernel_size=5, pooling="average", logit_scale=0.5),
    ResNetClassifier: lambda: ResNet(20),
}


def images_and_labels(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8), torch.arange(n) % 10


# Normalisation.


@pytest.mark.slow
def test_the_constants_are_those_of_the_training_images(real_root):
    data = CIFAR10DataModule(str(real_root), val_size=0)
    data.setup("fit")
    pixels = data.train.images.transpose(0, 1).flatten(1)
    counts = torch.stack([torch.bincount(channel, minlength=256) for channel in pixels]).double()
    values = torch.arange(256).double() / 255
    mean = counts @ values / counts.sum(1)
    std = (counts @ values**2 / counts.sum(1) - mean**2).sqrt()
    assert mean.tolist() == pytest.approx(CIFAR10_MEAN, abs=5e-5)
    assert std.tolist() == pytest.approx(CIFAR10_STD, abs=5e-5)


def test_normalize_is_that_of_torchvision():
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # as measured, by the test before
    images, _ = images_and_labels()
    expected = transforms.normalize(transforms.to_dtype(images, torch.float32, scale=True), mean, std)
    torch.testing.assert_close(MLPClassifier(MLP([4])).normalize(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.float16])
def test_images_that_are_not_uint8(dtype):
    images, _ = images_and_labels()
    model = MLPClassifier(MLP([4]))
    for call in (model.normalize, model, model.predict_logits):
        with pytest.raises(ValueError, match=rf"Expected `images` as uint8 pixels in \[0, 255\], got {dtype}"):
            call(images.to(dtype))


# Arguments.


def bad_sgd(**options):
    return lambda params: torch.optim.SGD(params, **{"lr": 0.1, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": -0.1}, "Expected `model.label_smoothing` in [0, 1), got -0.1."),
        ({"label_smoothing": 1.0}, "Expected `model.label_smoothing` in [0, 1), got 1.0."),
        ({"temperature": 0.0}, "Expected `model.temperature` above 0, got 0.0."),
        ({"temperature": math.inf}, "Expected `model.temperature` above 0, got inf."),
        ({"label_smoothing": math.nan}, "Expected `model.label_smoothing` in [0, 1), got nan."),
        ({"warmup_epochs": -1.0}, "Expected `model.warmup_epochs` to be at least 0 epochs, got -1.0."),
        ({"warmup_epochs": math.inf}, "Expected `model.warmup_epochs` to be at least 0 epochs, got inf."),
        ({"warmup_epochs": math.nan}, "Expected `model.warmup_epochs` to be at least 0 epochs, got nan."),
        ({"final_lr_ratio": -0.1}, "Expected `model.final_lr_ratio` in [0, 1], got -0.1."),
        ({"final_lr_ratio": 1.1}, "Expected `model.final_lr_ratio` in [0, 1], got 1.1."),
        (
            {"optimizer": bad_sgd(lr=-1.0)},
            "Expected valid arguments in `model.optimizer`, got: Invalid learning rate: -1.0.",
        ),
        (
            {"optimizer": bad_sgd(weight_decay=-0.5)},
            "Expected valid arguments in `model.optimizer`, got: Invalid weight_decay value: -0.5.",
        ),
        ({"optimizer": bad_sgd(momentun=0.9)}, "unexpected keyword argument 'momentun'"),
        (
            {"loss": nn.MultiMarginLoss(), "label_smoothing": 0.1},
            "Expected `model.label_smoothing` 0 with `model.loss`, got 0.1. Give the loss an argument of its own.",
        ),
        (
            {"loss": nn.CrossEntropyLoss(reduction="none")},
            "Expected `model.loss` to turn logits (B, 10) and labels (B,) into one number, got the shape (2,).",
        ),
        ({"loss": nn.MSELoss()}, "into one number, got RuntimeError: The size of tensor a (10) must match"),
        ({"loss": nn.Identity()}, "into one number, got TypeError: "),
    ],
)
def test_messages(options, message):
    with pytest.raises(ValueError, match="Expected") as caught:
        MLPClassifier(MLP([4]), **options)
    assert message in str(caught.value)


def test_all_problems_come_in_one_message():
    with pytest.raises(ValueError, match="Expected") as caught:
        MLPClassifier(
            MLP([4]), label_smoothing=2.0, warmup_epochs=-1.0, final_lr_ratio=3.0, optimizer=bad_sgd(weight_decay=-1.0)
        )
    for name in ("label_smoothing", "warmup_epochs", "final_lr_ratio", "optimizer"):
        assert str(caught.value).count(f"`model.{name}`") == 1


def test_the_edges_are_allowed():
    MLPClassifier(MLP([4]), label_smoothing=0.0, warmup_epochs=0.0, final_lr_ratio=0.0)
    MLPClassifier(MLP([4]), label_smoothing=0.99, warmup_epochs=0.5, final_lr_ratio=1.0)


# Training and evaluation.


def test_the_loss_is_smoothed_cross_entropy(make_trainer, data):
    class Record(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.loss, self.batch = outputs["loss"], batch

    record = Record()
    net = MLP([4], norm="layer", dropout=0.0)
    model = MLPClassifier(net, label_smoothing=0.2, optimizer=lambda params: torch.optim.SGD(params, lr=0.0))
    make_trainer(max_steps=1, callbacks=[record]).fit(model, data)
    log_probabilities, labels = model(record.batch.images).log_softmax(1), record.batch.labels
    total = 0.0
    for row, label in zip(log_probabilities, labels.tolist(), strict=True):
        for index in range(10):
            total -= (0.2 / 10 + 0.8 * (index == label)) * row[index].item()
    assert record.loss.item() == pytest.approx(total / len(labels), rel=1e-5)


def trained_weights(trainer, data, **options):
    torch.manual_seed(0)
    model = MLPClassifier(MLP([4]), **options)
    trainer.fit(model, data)
    return model.net.state_dict()


def test_a_loss_by_its_class(make_trainer, data):
    class Record(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.loss, self.batch = outputs["loss"], batch

    record = Record()
    model = MLPClassifier(
        MLP([4], norm="layer", dropout=0.0),
        loss=nn.MultiMarginLoss(),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.0),
    )
    trainer = make_trainer(max_epochs=1, callbacks=[record])
    trainer.fit(model, data)
    logits, labels = model(record.batch.images).detach(), record.batch.labels
    margins = 1 - logits.gather(1, labels[:, None]) + logits
    total = sum(
        float(m) for row, y in zip(margins.clamp(min=0), labels, strict=True) for m in [*row[:y], *row[y + 1 :]]
    )
    assert record.loss.item() == pytest.approx(total / 10 / len(labels), rel=1e-5)
    torch.testing.assert_close(  # the metric stays the cross-entropy
        trainer.callback_metrics["val/loss"], F.cross_entropy(model.eval()(data.val.images), data.val.labels)
    )


def test_the_default_loss_is_the_class_bit_for_bit(make_trainer, data):
    plain = trained_weights(make_trainer(max_epochs=1), data, label_smoothing=0.2)
    given = trained_weights(make_trainer(max_epochs=1), data, loss=nn.CrossEntropyLoss(label_smoothing=0.2))
    assert all(torch.equal(value, given[name]) for name, value in plain.items())
    assert "loss" not in dict(MLPClassifier(MLP([4])).named_children())  # no row in the summary


def test_a_training_step_that_keeps_no_outputs_has_no_training_metrics(make_trainer, data):
    class Bare(MLPClassifier):
        def training_step(self, batch, batch_idx):
            return self.loss(self(batch.images), batch.labels)

    trainer = make_trainer(max_epochs=2)
    trainer.fit(Bare(MLP([4])), data)
    assert "val/acc" in trainer.callback_metrics
    assert not [name for name in trainer.callback_metrics if name.startswith("train/")]


def test_a_small_network_learns_a_few_images_by_heart(make_trainer, data):
    data = CIFAR10DataModule(
        source="synthetic", synthetic_train=40, val_size=20, batch_size=20, flip=False, translate_px=0
    )
    model = MLPClassifier(MLP([64], dropout=0.0))
    trainer = make_trainer(max_epochs=60)
    trainer.fit(model, data)
    assert trainer.callback_metrics["train/acc"] == 1
    assert trainer.callback_metrics["train/loss"] < 0.1


@pytest.mark.parametrize("accumulate", [1, 3])
def test_training_metrics_are_of_all_images_as_they_were_seen(make_trainer, data, accumulate):
    class Record(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            self.logits, self.labels = [], []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            with torch.no_grad():  # dropout is off and nothing normalises by batch: the same again
                self.logits.append(pl_module(batch.images))
            self.labels.append(batch.labels)

    record = Record()
    model = MLPClassifier(MLP([16], norm="layer", dropout=0.0), label_smoothing=0.1)
    trainer = make_trainer(max_epochs=2, callbacks=[record], accumulate_grad_batches=accumulate)
    trainer.fit(model, data)
    logits, labels = torch.cat(record.logits), torch.cat(record.labels)
    metrics = trainer.callback_metrics
    assert len(labels) == model.confusion["train"].sum() == 60
    torch.testing.assert_close(metrics["train/acc"], (logits.argmax(1) == labels).float().mean())
    torch.testing.assert_close(metrics["train/loss"], F.cross_entropy(logits, labels))  # without the smoothing
    assert model.confusion["train"].sum(1).tolist() == torch.bincount(labels, minlength=10).tolist()


@pytest.mark.parametrize("tta", ["none", "flip", "flip_translate", "flip_grid"])
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_every_image_is_evaluated_once_with_the_views_asked_for(make_trainer, data, stage, tta):
    model = MLPClassifier(MLP([16]), tta=tta)
    trainer = make_trainer()
    getattr(trainer, stage)(model, data, verbose=False)
    split = "val" if stage == "validate" else "test"
    images, labels = getattr(data, split).images, getattr(data, split).labels
    logits = tta_logits(model.eval().net, model.normalize(images), tta)
    assert torch.equal(model.predict_logits(images), logits)
    assert model.confusion[split].sum() == 20
    torch.testing.assert_close(trainer.callback_metrics[f"{split}/loss"], F.cross_entropy(logits, labels))
    assert {name.split("/")[0] for name in trainer.callback_metrics} == {split}
    assert torch.equal(model(images), model.net(model.normalize(images)))


def test_the_temperature_divides_logits_outside_of_training():
    model = CNNClassifier(CNN([8]))
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    plain = model.eval()(images)
    model.temperature = 0.25
    torch.testing.assert_close(model(images), 4 * plain)
    for tta in ("none", "flip"):
        model.temperature = 1.0
        expected = model.predict_logits(images, tta)
        model.temperature = 0.25
        torch.testing.assert_close(model.predict_logits(images, tta), 4 * expected)
    torch.manual_seed(1)
    training = model.train()(images)
    torch.manual_seed(1)
    assert torch.equal(training, model.net(model.normalize(images)))


def test_predict_gives_probabilities_of_the_test_images(make_trainer, data):
    model = MLPClassifier(MLP([16]), tta="flip")
    parts = zip(*make_trainer().predict(model, data), strict=True)
    indices, labels, probabilities = (torch.cat(part) for part in parts)
    model.eval()  # as it was while it predicted
    assert indices.tolist() == list(range(20))
    assert torch.equal(labels, data.test.labels)
    torch.testing.assert_close(probabilities, model.predict_logits(data.test.images).softmax(1))


def test_evaluation_does_not_touch_the_network(make_trainer, data):
    model = CNNClassifier(CNN([8]))
    before = copy.deepcopy(model.state_dict())
    make_trainer().validate(model, data, verbose=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_network_is_checked_where_it_lies():
    """In `setup` Lightning says the device of the training, before it moves the network there."""
    model = CNNClassifier(CNN([8]))
    model._device = torch.device("meta")
    model.check_net([24])


# Compilation and checkpoints.


@pytest.mark.parametrize("classifier", SMALL)
def test_compiling_leaves_the_names_alone(classifier):
    plain, compiled = (classifier(SMALL[classifier](), compile=choice) for choice in (False, True))
    for model in (plain, compiled):
        model.setup("validate")
        assert model.net._compiled_call_impl is None
        model.setup("fit")
    assert plain.net._compiled_call_impl is None
    assert compiled.net._compiled_call_impl is not None
    assert list(plain.state_dict()) == list(compiled.state_dict())
    plain.load_state_dict(compiled.state_dict())


def test_evaluation_goes_past_the_compiled_call():
    model = MLPClassifier(MLP([4]), compile=True)

    def fail(*_):
        raise AssertionError("called the compiled network")

    model.net._compiled_call_impl = fail
    images, _ = images_and_labels()
    model.predict_logits(images)
    with pytest.raises(AssertionError, match="compiled"):
        model(images)


@pytest.mark.parametrize("classifier", SMALL)
def test_a_checkpoint_is_plain_and_loads_into_the_model(make_trainer, data, tmp_path, classifier):
    options = {
        "optimizer": lambda params: torch.optim.AdamW(params, lr=0.01),
        "label_smoothing": 0.1,
        "tta": "flip",
        "channels_last": True,
    }
    model = classifier(SMALL[classifier](), **options)
    trainer = make_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    trainer.fit(model, data)
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    check_checkpoint(path, model)

    checkpoint = torch.load(path, weights_only=True)
    # Nothing of the metrics or the loss, and nothing else that could change between versions.
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"net", "mean", "std"}

    rebuilt = classifier(SMALL[classifier](), **options).eval()
    rebuilt.load_state_dict(checkpoint["state_dict"])
    images, _ = images_and_labels()
    torch.testing.assert_close(rebuilt.predict_logits(images), model.eval().predict_logits(images))


def test_a_net_of_ones_own(make_trainer, data):
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3072, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(images.flatten(1))

    model = ImageClassifier(Flat())
    before = model.net.head.weight.detach().clone()
    make_trainer(max_epochs=1).fit(model, data)
    assert not torch.equal(model.net.head.weight, before)
