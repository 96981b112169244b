from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from cifar_lightning.analysis.curves import generalisation_gap, loss_spikes, plot_curves, plot_steps
from cifar_lightning.analysis.mistakes import confident_mistakes, confused_pairs, easiest, hardest


@pytest.fixture
def predictions() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.randint(0, 10, (300,))
    return (torch.randn(300, 10) + 2 * torch.eye(10)[labels]).softmax(1), labels


def test_rankings_equal_sorted_lists(predictions):
    probabilities, labels = predictions
    pairs = enumerate(zip(probabilities, labels.tolist(), strict=True))
    rows = [(p.max().item(), int(p.argmax()), p[y].item(), y, i) for i, (p, y) in pairs]
    wrong = sorted((row for row in rows if row[1] != row[3]), key=lambda row: -row[0])
    assert confident_mistakes(probabilities, labels, 7).tolist() == [row[4] for row in wrong[:7]]
    by_truth = sorted(rows, key=lambda row: row[2])
    assert hardest(probabilities, labels, 9).tolist() == [row[4] for row in by_truth[:9]]
    assert easiest(probabilities, labels, 9).tolist() == [row[4] for row in by_truth[::-1][:9]]


def test_rankings_are_as_long_as_they_can_be(predictions):
    probabilities, labels = predictions
    wrong = int((probabilities.argmax(1) != labels).sum())
    assert len(confident_mistakes(probabilities, labels, 1000)) == wrong
    assert len(hardest(probabilities, labels, 1000)) == 300
    assert len(confident_mistakes(torch.eye(10), torch.arange(10), 5)) == 0


def test_confused_pairs_are_the_largest_cells(predictions):
    probabilities, labels = predictions
    matrix = confusion_matrix(labels, probabilities.argmax(1), labels=range(10))
    cells = sorted((-matrix[i, j], i, j) for i in range(10) for j in range(10) if i != j)[:6]
    found = confused_pairs(torch.from_numpy(matrix), 6)
    assert [(-pair.images, pair.label, pair.prediction) for pair in found] == cells
    assert [pair.share for pair in found] == pytest.approx([-n / matrix[i].sum() for n, i, _ in cells])


def test_no_mistake_is_no_pair():
    assert confused_pairs(torch.eye(10, dtype=torch.long) * 5, 6) == []


def test_the_gap_is_training_minus_validation():
    nan = float("nan")
    assert generalisation_gap({"train/acc": [0.5, 0.7, 0.9], "val/acc": [0.5, nan, 0.6]}) == pytest.approx([0, 0.3])
    assert generalisation_gap({"train/acc": [0.5]}) == []


def test_spikes_stand_out_of_the_values_before():
    losses = [1.0] * 10 + [1.4, 1.6, 1.0, float("nan"), 1.0]
    assert loss_spikes(losses) == [11, 13]
    assert loss_spikes([5.0, 1.0, 9.0]) == []  # too few before to judge


def test_curves_have_units_and_the_gap():
    history = {"train/acc": [0.5, 0.75], "val/acc": [0.5, 0.625], "train/loss": [1.5, 1.0]}
    figure = plot_curves(history, "Learning curves, cnn/version_0")
    left, right = figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("cross-entropy, nats", "accuracy, %")
    assert len(left.lines) == 1
    np.testing.assert_allclose(right.lines[1].get_ydata(), [50, 62.5])
    texts = [text.get_text() for text in right.get_legend().get_texts()]
    assert texts == ["training", "validation", "gap at the end: 12.5 points"]
    figure.canvas.draw()


def test_steps_share_an_axis():
    figure = plot_steps({"loss": ([1, 2], [3.0, 4.0]), "learning rate": ([1, 2], [0.1, 0.2])}, "cnn/version_0")
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "learning rate"]
    assert figure.axes[-1].get_xlabel() == "optimizer step"
    figure.canvas.draw()
