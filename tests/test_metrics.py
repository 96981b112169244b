from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import MLP, fit
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.functional.classification import multiclass_calibration_error

from cifar_lightning import CLASSES
from cifar_lightning.__main__ import main
from cifar_lightning.analysis.calibration import reliability
from cifar_lightning.metrics import (
    METRICS,
    CalibrationError,
    ClassificationMetrics,
    EpochOutputs,
    Measure,
    Reliability,
    metric_names,
)


def random_outputs(n: int = 500, scale: float = 2.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are right more often than not, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (n,), generator=generator)
    logits = scale * torch.randn(n, 10, generator=generator)
    logits[torch.arange(n), labels] += scale
    return logits, labels


def evaluate(
    logits: torch.Tensor, labels: torch.Tensor, batch_size: int = 10_000
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    metrics = ClassificationMetrics()
    for some_logits, some_labels in zip(logits.split(batch_size), labels.split(batch_size), strict=True):
        metrics.update(some_logits, some_labels)
    return metrics.compute()


def binned(confidences: np.ndarray, right: np.ndarray, n_bins: int = 15) -> float:
    """The expected calibration error by its definition; the last bin includes 1."""
    total = 0.0
    for i in range(n_bins):
        low, high = i / n_bins, (i + 1) / n_bins
        inside = (confidences >= low) & ((confidences < high) | (i == n_bins - 1))
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - confidences[inside].mean())
    return total / len(confidences)


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_scores_are_those_of_scikit_learn(scale):
    logits, labels = random_outputs(scale=scale)
    scalars, confusion = evaluate(logits, labels)
    preds, probabilities = logits.argmax(1).numpy(), logits.double().softmax(1).numpy()
    assert scalars["acc"] == pytest.approx(sklearn.metrics.accuracy_score(labels, preds))
    assert scalars["f1"] == pytest.approx(sklearn.metrics.f1_score(labels, preds, average="macro"))
    assert scalars["loss"] == pytest.approx(sklearn.metrics.log_loss(labels, probabilities), rel=1e-5)
    expected = sklearn.metrics.confusion_matrix(labels, preds)
    assert confusion.tolist() == expected.tolist()
    recalls = sklearn.metrics.recall_score(labels, preds, average=None)
    assert [scalars[f"class_acc/{name}"].item() for name in CLASSES] == pytest.approx(recalls.tolist())
    ece = binned(probabilities.max(1), preds == labels.numpy())
    assert scalars["ece"] == pytest.approx(ece, abs=1e-5)
    assert 0.01 < ece < 0.9  # else it would prove little
    assert set(scalars) == {"loss", "acc", "f1", "ece", *(f"class_acc/{name}" for name in CLASSES)}
    assert list(scalars) == metric_names()


def test_classes_that_never_come_up_do_not_count_in_f1():
    logits, labels = random_outputs()
    labels = labels % 4
    logits[:, 4:] = -100
    expected = sklearn.metrics.f1_score(labels, logits.argmax(1), average="macro")
    assert evaluate(logits, labels)[0]["f1"] == pytest.approx(expected)


def test_true_classes_are_rows():
    confusion = evaluate(torch.eye(10)[[3, 3, 3]], torch.tensor([3, 5, 5]))[1]
    assert confusion.dtype == torch.int64
    assert confusion[5, 3] == 2
    assert confusion[3, 3] == 1
    assert confusion.sum() == 3


def test_a_confidence_of_one_falls_into_the_last_bin():
    # Two of confidence 1 and wrong, two of 0.97 and right: together 0.5 right at a confidence of 0.985, apart
    # 0.515 off on average.
    logits = torch.zeros(4, 10)
    logits[:2, 0] = 300.0
    logits[2:, 0] = math.log(9 * 0.97 / 0.03)
    labels = torch.tensor([1, 1, 0, 0])
    assert logits.softmax(1).amax(1)[:2].tolist() == [1, 1]
    assert evaluate(logits, labels)[0]["ece"] == pytest.approx(0.485, abs=1e-5)
    right = evaluate(logits, torch.zeros(4, dtype=torch.long))[0]["ece"]
    assert right == pytest.approx(binned(np.array([1, 1, 0.97, 0.97]), np.ones(4)), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 499])
def test_batches_do_not_show(batch_size):
    logits, labels = random_outputs()
    scalars, confusion = evaluate(logits, labels, batch_size)
    whole, whole_confusion = evaluate(logits, labels)
    assert torch.equal(confusion, whole_confusion)
    for name, value in whole.items():
        torch.testing.assert_close(scalars[name], value, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision_counts_as_float(dtype):
    logits, labels = random_outputs()
    found, expected = evaluate(logits.to(dtype), labels)[0], evaluate(logits.to(dtype).float(), labels)[0]
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert found["loss"].dtype == torch.float32


def test_a_loss_that_is_no_number_shows():
    logits, labels = random_outputs(20)
    logits[3, 2] = float("nan")
    scalars, confusion = evaluate(logits, labels, 5)
    assert scalars["loss"].isnan()
    assert confusion.sum() == 20


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_the_calibration_error_is_that_of_torchmetrics(scale):
    logits, labels = random_outputs(2000, scale)
    expected = multiclass_calibration_error(logits.softmax(1), labels, 10, n_bins=15, norm="l1")
    assert evaluate(logits, labels, 77)[0]["ece"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_calibration_error_depends_on_no_batches():
    logits, labels = random_outputs(1000)
    errors = {evaluate(logits, labels, size)[0]["ece"].item() for size in (1, 7, 64, 1000)}
    errors.add(evaluate(logits.flip(0), labels.flip(0))[0]["ece"].item())
    assert len(errors) == 1


def test_the_bins_of_the_metric_are_those_of_the_figure():
    logits, labels = random_outputs()
    metric = CalibrationError()
    for part in (slice(0, 200), slice(200, None)):
        metric.update(logits[part].softmax(1), labels[part])
    found, expected = Reliability.of(metric.sums), reliability(logits.softmax(1), labels)
    for name in ("counts", "confidence", "accuracy"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert metric.compute().item() == pytest.approx(expected.error, rel=1e-6)


@pytest.mark.slow
def test_a_new_metric_is_a_line(monkeypatch, capsys):
    top3 = Measure("top-3 accuracy", lambda: MulticlassAccuracy(10, average="micro", top_k=3), is_share=True)
    monkeypatch.setitem(METRICS, "top3", top3)
    run = fit(*MLP, "--checkpoint.monitor=val/top3", "--early_stopping.monitor=train/top3")
    printed = capsys.readouterr().err
    assert main(["test", "--run", str(run)]) == 0
    printed += capsys.readouterr().err
    result = json.loads((run / "result.json").read_text())
    assert result["fit"]["best"]["monitor"] == "val/top3"
    test = result["test"]["metrics"]["test/top3"]
    assert 0.2 < test <= 1
    assert f"top-3 accuracy {test:.4f}" in printed
    assert printed.count("top-3 accuracy") == 2  # after the training, and after the test
    header, *rows = csv.reader((run / "metrics.csv").read_text().splitlines())
    assert {"train/top3", "val/top3"} <= set(header)
    best = max(float(row[header.index("val/top3")]) for row in rows)
    events = EventAccumulator(str(run)).Reload()
    assert [point.value for point in events.Scalars("hp/val/top3")] == [pytest.approx(best)]
    assert main(["report", "--run", str(run), "--images", "6"]) == 0
    report = (run / "report/report.md").read_text()
    assert "top-3 accuracy, %" in report
    assert f"{100 * test:.2f}" in report


def test_reset_forgets():
    logits, labels = random_outputs()
    metrics = ClassificationMetrics()
    metrics.update(*random_outputs(100, seed=1))
    metrics.compute()
    metrics.reset()
    metrics.update(logits, labels)
    scalars, confusion = metrics.compute()
    expected, expected_confusion = evaluate(logits, labels)
    assert torch.equal(confusion, expected_confusion)
    assert all(torch.equal(scalars[name], value) for name, value in expected.items())


def test_checkpoints_hold_no_states():
    metrics = ClassificationMetrics()
    metrics.update(*random_outputs(10))
    assert not metrics.state_dict()


@pytest.mark.parametrize("sizes", [[5], [1, 2, 3, 4, 100, 1], [7] * 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_outputs_of_an_epoch_are_those_of_its_batches(sizes, dtype):
    batches = [(torch.randn(n, 10, dtype=dtype), torch.randint(0, 10, (n,))) for n in sizes]
    outputs = EpochOutputs()
    addresses = set()
    for logits, labels in batches:
        outputs.append(logits, labels)
        addresses.add(outputs.tensors()[0].data_ptr())
    for found, parts in zip(outputs.tensors(), zip(*batches, strict=True), strict=True):
        assert torch.equal(found, torch.cat(parts))
        assert found.dtype == parts[0].dtype
    assert len(addresses) <= 1 + math.log2(sum(sizes))
