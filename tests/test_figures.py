"""Which figures are drawn, when and of which weights; and how to add one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import CNN, DRAWING, MLP, fit
from torch import nn

from cifar_lightning.__main__ import main
from cifar_lightning.analysis import figures
from cifar_lightning.analysis.figures import FIGURES, Evaluated, filter_kinds
from cifar_lightning.analysis.style import new_figure
from cifar_lightning.models import cnn, mlp

THROUGH = "first trained layer, projected to pixels through the whitening (linear parts only)"


def drawn(run) -> dict[str, list[int]]:
    """Steps at which each figure was drawn."""
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    return {tag: [image.step for image in events.Images(tag)] for tag in events.Tags()["images"]}


def evaluated(net: nn.Module, n: int = 50) -> Evaluated:
    images, labels = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8), torch.randint(0, 10, (n,))
    with torch.no_grad():
        logits = net.eval()(images / 255)
    return Evaluated(net, lambda x: x / 255, images, labels, logits, "cnn/version_0", f"{n} val images")


@pytest.mark.parametrize(
    ("every", "epochs", "steps"),
    [pytest.param(1, 3, [5, 10, 15], marks=pytest.mark.slow), (2, 4, [10, 20]), (2, 3, [10, 15]), (5, 2, [10])],
)
def test_one_cadence_and_always_the_last_epoch(every, epochs, steps):
    options = (f"--figures.every_n_epochs={every}", "--figures.show=[confusion, mistakes]")
    run = fit(*MLP, *options, f"--trainer.max_epochs={epochs}")
    assert drawn(run) == {"val/confusion": steps, "val/mistakes": steps}


@pytest.mark.parametrize(
    "stop", [("--early_stopping.patience=1", "--model.optimizer.lr=0"), ("--trainer.max_steps=17",)], ids=str
)
def test_the_last_validation_of_a_training_that_ends_early_is_drawn(stop):
    optimizer = "--model.optimizer=torch.optim.SGD"
    run = fit(
        *MLP, optimizer, *stop, "--figures.show=[confusion]", "--trainer.max_epochs=9", "--figures.every_n_epochs=9"
    )
    assert drawn(run) == {"val/confusion": [15 if "max_steps" in stop[0] else 10]}


@pytest.mark.parametrize("off", ["--figures.show=[]", "--figures.every_n_epochs=0"])
def test_nothing_is_drawn_where_they_are_turned_off(off):
    run = fit(*CNN, *DRAWING, off)
    assert drawn(run) == {}
    assert not list(run.rglob("metadata.tsv"))  # of the projector
    assert main(["test", "--run", str(run)]) == 0
    assert not (run / "figures").exists()


def test_bad_options_are_one_message(capsys):
    options = ["every_n_epochs=-1", "show=[confusion, confusoin, roc]", "images=0"]
    assert main(["fit", *MLP, *(f"--figures.{option}" for option in options)]) == 2
    error = capsys.readouterr().err
    assert "`--figures.every_n_epochs` to be at least 0 epochs, got -1" in error
    assert f"`--figures.show` to be a list of some of {', '.join(FIGURES)}, projector; got confusoin, roc" in error
    assert "`--figures.images` to be at least 1 image, got 0" in error
    assert "Traceback" not in error


def test_averaged_weights_are_those_of_the_figures(monkeypatch):
    kept = []

    def spy(shown: Evaluated) -> str:
        outputs = shown.net(shown.inputs(torch.arange(len(shown.labels))))
        kept.append((outputs, shown.logits))
        return "it only looks"

    monkeypatch.setitem(FIGURES, "spy", spy)
    average = ("--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.9")
    run = fit(*CNN, *average, "--figures.show=[spy]", "--figures.every_n_epochs=1", "--trainer.max_epochs=3")
    assert len(kept) == 3
    for outputs, logits in kept:
        torch.testing.assert_close(outputs, logits, rtol=1e-4, atol=1e-5)
    plain = fit(*CNN, *average, "--figures.every_n_epochs=0", "--trainer.max_epochs=3")
    states = [torch.load(r / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for r in (run, plain)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_a_new_figure_is_a_function_and_an_entry(monkeypatch, capsys):
    def class_counts(shown: Evaluated) -> Figure:
        figure = new_figure(4, 3, f"Images of each class, {shown.title}")
        figure.add_subplot().bar(range(10), torch.bincount(shown.labels, minlength=10).tolist())
        return figure

    monkeypatch.setitem(FIGURES, "class_counts", class_counts)
    run = fit(*MLP, *DRAWING, "--figures.show=[class_counts]")
    assert drawn(run) == {"val/class_counts": [5, 10]}
    assert main(["test", "--run", str(run)]) == 0
    with Image.open(run / "figures/test_class_counts.png") as image:
        assert image.size == (400, 300)
    assert main(["report", "--run", str(run)]) == 0
    assert (run / "report/figures/class_counts.png").is_file()
    markdown = (run / "report/report.md").read_text()
    assert "](figures/class_counts.png)" in markdown
    assert "Images of each class" in markdown


class Headless(nn.Module):
    """A network without filters that look at colours and without layers."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(32, 10))

    def forward(self, images):
        return (images @ self.mix).mean((1, 2))


def test_the_confusion_matrix_has_true_classes_in_its_rows():
    shown = evaluated(Headless())
    expected = confusion_matrix(shown.labels, shown.logits.argmax(1), labels=range(10))
    assert shown.confusion.tolist() == expected.tolist()


def test_what_a_network_does_not_have_is_a_reason():
    shown = evaluated(Headless())
    assert figures.filters(shown) == "the network has no filters that look at colours"
    assert figures.feature_maps(shown) == "the network has no layers whose outputs can be drawn"
    right = Evaluated(shown.net, shown.normalize, shown.images, shown.labels, 9 * torch.eye(10)[shown.labels], "a", "b")
    assert figures.mistakes(right) == "no image is misclassified"


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("px", [2, 3])
def test_filters_behind_a_whitening_are_both_convolutions_in_one(px, kernel_size):
    net = cnn.CNN([6], [1], kernel_size=kernel_size, whiten_px=px, norm="none").eval()
    net.initialise_from(torch.randn(20, 3, 32, 32))
    trained, whitening = filter_kinds(net).values()
    assert trained.shape == (6, 3, kernel_size + px - 1, kernel_size + px - 1)
    assert whitening is not trained
    assert torch.equal(whitening, net.whiten[0].weight)
    images = torch.randn(2, 3, 16, 16)
    inner = nn.functional.conv2d(net.whiten[0](images), net.stages[0].down[0].weight)
    torch.testing.assert_close(nn.functional.conv2d(images, trained), inner, rtol=1e-4, atol=1e-4)


def test_filters_without_a_whitening_are_those_of_the_first_layer():
    net = cnn.CNN([6], [1])
    (kernels,) = filter_kinds(net).values()
    assert torch.equal(kernels, net.stages[0].down[0].weight)
    net = mlp.MLP([7], whiten_components=20)
    net.initialise_from(torch.randn(30, 3, 32, 32))
    trained, whitening = filter_kinds(net).values()
    assert torch.equal(trained.flatten(1), net.hidden[0][0].weight @ net.whitening.T)
    assert torch.equal(whitening.flatten(1), net.whitening.T)


def test_both_kinds_of_filters_are_drawn():
    net = cnn.CNN([6], [1], whiten_px=2)
    figure = figures.filters(evaluated(net))
    assert figure.get_suptitle() == "Filters, cnn/version_0"
    assert [axes.get_title() for axes in figure.axes] == [
        f"{THROUGH}: 6 strongest of 6, 4×4 pixels",
        "whitening: 24 strongest of 24, 2×2 pixels",
    ]
    assert all(np.asarray(axes.images[0].get_array()).std() > 0.01 for axes in figure.axes)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_names_the_run(name):
    figure = FIGURES[name](evaluated(cnn.CNN([4], [1])))
    assert isinstance(figure, Figure)
    assert "cnn/version_0" in figure.get_suptitle()
    figure.canvas.draw()
