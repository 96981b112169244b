"""Sections about results: metrics, curves, confusions, mistakes, calibration and the configuration behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from cifar_lightning import CLASSES
from cifar_lightning.analysis import figures
from cifar_lightning.analysis.confusion import class_scores
from cifar_lightning.analysis.curves import generalisation_gap, loss_spikes, plot_curves, plot_steps
from cifar_lightning.analysis.mistakes import confident_mistakes, confused_pairs, easiest, hardest
from cifar_lightning.analysis.statistics import wilson
from cifar_lightning.metrics import METRICS
from cifar_lightning.pages import Block, Picture, Section, Table, Text
from cifar_lightning.report.examination import Examination

__all__ = [
    "calibration",
    "class_table",
    "confusions",
    "galleries",
    "learning_curves",
    "result",
    "setting",
    "training_steps",
]

CONFUSED_PAIRS = 10
"""Frequent confusions in the table."""
PICTURED_PAIRS = 4
"""Those with a gallery, of a third of the images of the others."""


def result(exam: Examination) -> Section:
    """Return the metrics, and what they are of."""
    recorded, rows = exam.run.result, []
    for stage, split in (("test", "test"), ("validate", "val")):
        metrics = recorded.get(stage, {}).get("metrics", {})
        if f"{split}/acc" in metrics:
            n = recorded.get("data", {}).get(split, 0)
            values = {name: metrics.get(f"{split}/{name}", math.nan) for name in exam.metrics}
            rows.append(metric_row(f"{split} (command {stage})", n, values))
    for name, part in recorded.get("clean", {}).items():
        values = {**dict.fromkeys(exam.metrics, math.nan), "acc": part["acc"]}
        rows.append(metric_row(f"test {name.replace('_', ' ')} (command test)", part["images"], values))
    rows.append(metric_row(f"{exam.split} (this report)", len(exam.labels), exam.metrics))
    units = ((METRICS[name].words, ", %" if METRICS[name].is_share else "") for name in exam.metrics)
    accuracy, *others = (f"{words}{unit}" for words, unit in units)
    header = ["split", "images", accuracy, "95 % of it", *others]
    text = f"{type(exam.net).__name__} with {exam.parameters:,} parameters, seed {recorded.get('seed', 'unknown')}"
    fit = recorded.get("fit", {})
    if "seconds" in fit:
        epochs = fit.get("epochs", "?")
        text += f", trained for {epochs} {'epoch' if epochs == 1 else 'epochs'} in {fit['seconds']:,.0f} s"
    text += (
        f". This report evaluates it on {exam.where} without test-time augmentation. The interval of an accuracy is "
        "about other images like these (Wilson), for this one network."
    )
    if "clean" in recorded:
        text += (
            " Suspects are images that the networks of the audit get wrong: without them the accuracy rises by the "
            "choice alone."
        )
    if exam.is_synthetic:
        text += " SYNTHETIC images are rendered shapes: their numbers say nothing about CIFAR-10."
    return Section("Result", [Text(text), Table(header, rows, "Metrics")])


def metric_row(title: str, n: int, metrics: Mapping[str, float]) -> list[str]:
    """Return a row about n images: the accuracy, its interval, and the other metrics."""
    accuracy, *others = score_cells(metrics)
    interval = " to ".join(f"{100 * end:.2f}" for end in wilson(metrics["acc"], n)) if n else ""
    return [title, f"{n:,}", accuracy, interval, *others]


def score_cells(metrics: Mapping[str, float]) -> list[str]:
    """Return the cells of a row of metrics by name, empty for NaN."""
    return [
        decimals(100 * value, 2) if METRICS[name].is_share else decimals(value, 4) for name, value in metrics.items()
    ]


def learning_curves(exam: Examination) -> Section | str:
    """Return the curves over epochs."""
    names = [name for name in ("train/loss", "val/loss", "train/acc", "val/acc") if name in exam.history]
    if not names:
        return "Learning curves: the run has no metrics.csv."
    epochs = len(exam.history[names[0]])
    rows = [[str(e + 1), *(digits(exam.history[name][e]) for name in names)] for e in range(epochs)]
    text = (
        "Training metrics are those of the augmented images that the network was trained on, while its weights changed "
        "within the epoch; validation metrics are those of the weights at its end."
    )
    if gap := generalisation_gap(exam.history):
        text += (
            f" At the end, training accuracy minus validation accuracy is {100 * gap[-1]:.1f} points; its maximum is "
            f"{100 * max(gap):.1f}."
        )
    picture = Picture(
        "curves",
        plot_curves(exam.history, f"Learning curves, {exam.name}"),
        f"Two charts over {epochs} epochs: cross-entropy and accuracy of training and validation.",
        Table(["epoch", *names], rows, "Learning curves"),
    )
    return Section("Learning curves", [Text(text), picture])


def training_steps(exam: Examination) -> Section | str:
    """Return the curves over optimizer steps."""
    names = {"step/loss": "training loss, nats", "step/gradient_norm": "gradient norm", "step/lr": "learning rate"}
    curves = {title: exam.steps[tag] for tag, title in names.items() if tag in exam.steps}
    if not curves:
        return "Training steps: the run logged no loss, gradient norm or learning rate by step."
    blocks: list[Block] = []
    if "step/loss" in exam.steps:
        steps, losses = exam.steps["step/loss"]
        spikes = [str(steps[i]) for i in loss_spikes(losses)]
        where = f" (steps {', '.join(spikes[:10])}{', ...' if len(spikes) > 10 else ''})" if spikes else ""
        blocks.append(
            Text(
                f"{len(spikes)} of {len(losses)} logged losses are spikes{where}: not finite, or more than 1.5 times "
                f"the median of the ten before. The last loss is {losses[-1]:.4f}."
            )
        )
    rows = [
        [title, str(len(values)), digits(min(values)), digits(max(values)), digits(values[-1])]
        for title, (_, values) in curves.items()
    ]
    table = Table(["curve", "points", "minimum", "maximum", "last"], rows, "Curves over optimizer steps")
    figure = plot_steps(curves, f"Training steps, {exam.name}")
    blocks.append(Picture("steps", figure, f"Curves over the optimizer steps: {'; '.join(curves)}.", table))
    return Section("Training steps", blocks)


def confusions(exam: Examination) -> Section:
    """Return the confusion matrix, and examples of the most frequent confusions."""
    counts = [[name, *(str(n) for n in row)] for name, row in zip(CLASSES, exam.confusion.tolist(), strict=True)]
    blocks: list[Block] = [
        Picture(
            "confusion",
            figures.confusion(exam.evaluated),
            "Confusion matrix: true classes in rows, predicted classes in columns.",
            Table(["true class", *CLASSES], counts, "Images of each true class (row) by predicted class (column)"),
        )
    ]
    pairs = confused_pairs(exam.confusion, CONFUSED_PAIRS)
    if pairs:
        rows = [
            [CLASSES[pair.label], CLASSES[pair.prediction], str(pair.images), f"{100 * pair.share:.1f}"]
            for pair in pairs
        ]
        header = ["true class", "predicted class", "images", "share of the true class, %"]
        blocks.append(Table(header, rows, "Most frequent confusions"))
    for number, pair in enumerate(pairs[:PICTURED_PAIRS], start=1):
        chosen = ((exam.labels == pair.label) & (exam.predictions == pair.prediction)).nonzero()[:, 0]
        title = f"{CLASSES[pair.label]} predicted as {CLASSES[pair.prediction]}"
        blocks.append(gallery(exam, f"pair{number}", chosen[: math.ceil(exam.gallery_images / 3)], title))
    return Section("Confusions", blocks)


def class_table(exam: Examination) -> Section:
    """Return precision, recall and F1 of each class."""
    rows = [
        [name, f"{100 * recall:.1f}", f"{100 * precision:.1f}", f"{100 * f1:.1f}", f"{n:,}"]
        for name, (precision, recall, f1, n) in zip(CLASSES, class_scores(exam.confusion), strict=True)
    ]
    header = ["class", "accuracy (recall), %", "precision, %", "F1, %", "images"]
    return Section("Scores by class", [Table(header, rows, f"Scores by class, {exam.subtitle}")])


def galleries(exam: Examination) -> Section:
    """Return the most confident mistakes, and the images with the lowest and highest probability of the true class."""
    kinds = (
        ("mistakes", "Most confident mistakes", confident_mistakes),
        ("hardest", "Hardest images (lowest probability of the true class)", hardest),
        ("easiest", "Easiest images (highest probability of the true class)", easiest),
    )
    blocks: list[Block] = []
    for name, title, choose in kinds:
        rows = choose(exam.probabilities, exam.labels, exam.gallery_images)
        blocks.append(gallery(exam, name, rows, title) if len(rows) else Text(f"{title}: none."))
    return Section("Mistakes, hardest and easiest images", blocks)


def gallery(exam: Examination, name: str, rows: Tensor, title: str) -> Picture:
    """Return images with their predictions, and the numbers behind them."""
    figure, title = exam.evaluated.gallery(rows, title), f"{title}, {exam.subtitle}"
    cells = [
        [
            str(row),
            CLASSES[int(exam.labels[row])],
            CLASSES[int(exam.predictions[row])],
            f"{exam.probabilities[row].max():.4f}",
            f"{exam.probabilities[row, exam.labels[row]]:.4f}",
        ]
        for row in rows.tolist()
    ]
    header = ["index in the split", "true class", "predicted class", "its probability", "probability of the true class"]
    return Picture(name, figure, f"{title}: {len(rows)} images.", Table(header, cells, title))


def calibration(exam: Examination) -> Section:
    """Return reliability diagrams before and after temperature scaling."""
    found = exam.calibration
    diagrams = {"as trained": found.before}
    if found.after is None:
        text = "Temperature scaling needs held-out images; this run was trained on all."
    else:
        diagrams[f"at temperature {found.temperature:.2f}"] = found.after
        fitted = "every second validation image (the others are shown)" if exam.split == "val" else "validation images"
        kind = "overconfident" if found.temperature > 1 else "underconfident"
        text = (
            f"Dividing the logits by the temperature {found.temperature:.3f} minimises the cross-entropy on {fitted}: "
            f"the network is {kind}. The expected calibration error changes from {found.before.error:.4f} to "
            f"{found.after.error:.4f}. `--model.temperature {exam.model.temperature * found.temperature:.3f}` sets it."
        )
    n = len(found.before.counts)
    rows = [
        [f"{i / n:.3f} to {(i + 1) / n:.3f}"]
        + [
            cell
            for diagram in diagrams.values()
            for cell in (str(int(diagram.counts[i])), f"{diagram.confidence[i]:.4f}", f"{diagram.accuracy[i]:.4f}")
        ]
        for i in range(n)
    ]
    columns = [f"{column}, {name}" for name in diagrams for column in ("images", "confidence", "accuracy")]
    picture = Picture(
        "reliability",
        figures.reliability_diagram(replace(exam.evaluated, diagrams=diagrams)),
        f"Accuracy against confidence in {n} bins, beside the diagonal of perfect calibration, and images in each bin.",
        Table(["confidence", *columns], rows, "Reliability"),
    )
    return Section("Calibration", [Text(text), picture])


def setting(exam: Examination) -> Section:
    """Return the configuration and the environment of the training."""
    facts = {**exam.run.result.get("versions", {}), **exam.run.result.get("hardware", {})}
    if isinstance(size := facts.pop("memory_bytes", None), int):
        facts["memory"] = f"{size / 1e9:.1f} GB"
    facts |= {key: exam.run.result[key] for key in ("git_commit", "started", "finished") if key in exam.run.result}
    rows = [
        [key.replace("_", " "), (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)]
        for key, value in facts.items()
    ]
    table = Table(["item", "value"], rows, "Versions, hardware and times of the training")
    return Section("Configuration and environment", [table, Text(exam.run.config_text, code=True)])


def decimals(value: float, places: int) -> str:
    """Return a number with so many decimal places, or nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.{places}f}"


def digits(value: float) -> str:
    """Return a number with four significant digits, or nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.4g}"
