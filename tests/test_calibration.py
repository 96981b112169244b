from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torchmetrics.functional.classification import multiclass_calibration_error

from cifar_lightning.analysis.calibration import fit_temperature, plot_reliability, reliability


def predictions(n: int = 2000, sharpness: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose true temperature is `sharpness`, and labels drawn from them."""
    logits = torch.randn(n, 10) * 2
    labels = torch.multinomial(logits.softmax(1), 1)[:, 0]
    return logits * sharpness, labels


def test_bins_equal_a_loop_by_hand():
    logits, labels = predictions(500)
    probabilities = logits.softmax(1)
    found = reliability(probabilities, labels, bins=7)
    rows: list[list[tuple[float, bool]]] = [[] for _ in range(7)]
    for row, label in zip(probabilities.double().numpy(), labels.tolist(), strict=True):
        rows[min(6, int(row.max() * 7))].append((row.max(), row.argmax() == label))
    assert found.counts.tolist() == [len(row) for row in rows]
    for row, confidence, accuracy in zip(rows, found.confidence.tolist(), found.accuracy.tolist(), strict=True):
        assert confidence == pytest.approx(np.mean([c for c, _ in row]) if row else 0)
        assert accuracy == pytest.approx(np.mean([right for _, right in row]) if row else 0)
    by_hand = sum(
        len(row) / 500 * abs(np.mean([c for c, _ in row]) - np.mean([r for _, r in row])) for row in rows if row
    )
    assert found.error == pytest.approx(by_hand)


def test_the_error_is_that_of_torchmetrics():
    logits, labels = predictions()
    expected = multiclass_calibration_error(logits.softmax(1), labels, 10, n_bins=15, norm="l1")
    assert reliability(logits.softmax(1), labels).error == pytest.approx(expected.item(), abs=1e-6)


def test_certainty_falls_into_the_last_bin():
    found = reliability(torch.eye(10), torch.arange(10))
    assert found.counts.tolist() == [0] * 14 + [10]
    assert found.error == 0


def test_no_prediction_has_no_error():
    assert reliability(torch.zeros(0, 10), torch.zeros(0, dtype=torch.long)).error == 0


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_the_temperature_is_the_minimum_that_scipy_finds(sharpness):
    logits, labels = predictions(5000, sharpness)
    found = fit_temperature(logits, labels)
    best = minimize_scalar(
        lambda t: F.cross_entropy(logits.double() / t, labels).item(), bounds=(0.05, 20), method="bounded"
    ).x
    assert found == pytest.approx(best, rel=1e-3)
    assert found == pytest.approx(sharpness, rel=0.1)
    assert reliability((logits / found).softmax(1), labels).error < 0.03


def test_a_temperature_stays_within_its_limits():
    right = torch.eye(10) * 5
    assert fit_temperature(right, torch.arange(10)) == 0.05  # never wrong: no certainty is too much
    assert fit_temperature(right, (torch.arange(10) + 1) % 10) == 20.0  # never right


def test_the_diagram_shows_both_and_their_errors():
    logits, labels = predictions()
    diagrams = {
        "as trained": reliability(logits.softmax(1), labels),
        "scaled": reliability((logits / 3).softmax(1), labels),
    }
    figure = plot_reliability(diagrams, "Reliability, cnn/version_0, 2,000 val images")
    upper, lower = figure.axes
    shown = [text.get_text() for text in upper.get_legend().get_texts()]
    assert shown == ["perfect", *(f"{name}: calibration error {d.error:.3f}" for name, d in diagrams.items())]
    for line, found in zip(upper.lines[1:], diagrams.values(), strict=True):
        filled = found.counts > 0
        np.testing.assert_array_equal(line.get_xdata(), found.confidence[filled])
        np.testing.assert_array_equal(line.get_ydata(), found.accuracy[filled])
    assert "accuracy" in upper.get_ylabel()
    assert "confidence" in lower.get_xlabel()
    figure.canvas.draw()
