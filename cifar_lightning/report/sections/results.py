"""What came out of a run: accuracy, curves, confusions, mistakes, calibration, stability, and how to repeat it."""

from __future__ import annotations

import torch
from torch import Tensor

from cifar_lightning import CLASSES
from cifar_lightning.analysis.calibration import Reliability, plot_reliability
from cifar_lightning.analysis.confusion import class_scores, plot_confusion
from cifar_lightning.analysis.curves import generalisation_gap, loss_spikes, plot_curves, plot_steps
from cifar_lightning.analysis.gallery import plot_predictions
from cifar_lightning.analysis.mistakes import confident_mistakes, confused_pairs, easiest, hardest
from cifar_lightning.pages import Picture, Section, Table, Text
from cifar_lightning.report.findings import Findings
from cifar_lightning.report.run import LoadedRun
from cifar_lightning.report.sections.words import digits, of, percent

__all__ = ["classes", "confusions", "galleries", "headline", "learning", "setting", "stability", "trust"]

PAIRS = 4
"""Frequent confusions with examples; a row of examples has a third of a gallery's images."""


def headline(run: LoadedRun, found: Findings) -> Section:
    """What came out."""
    rows = []
    for stage, split in (("test", "test"), ("validate", "val")):
        metrics = run.result.get(stage, {}).get("metrics", {})
        if f"{split}/acc" in metrics:
            n = run.result.get("data", {}).get(split, 0)
            names = ("acc", "f1", "loss", "ece")
            values = [metrics.get(f"{split}/{name}") for name in names]
            shown = ["" if v is None else percent(v) if i < 2 else f"{v:.4f}" for i, v in enumerate(values)]
            rows.append([f"{split}, as `{stage}` was run", f"{n:,}", *shown])
    plain = torch.nn.functional.cross_entropy(found.logits, found.labels).item()
    f1 = sum(row[2] for row in class_scores(found.confusion)) / len(CLASSES)
    error = found.calibration.before.error
    rows.append(
        [
            f"{found.split}, each image as it is",
            f"{len(found.labels):,}",
            percent(found.accuracy),
            percent(f1),
            f"{plain:.4f}",
            f"{error:.4f}",
        ]
    )
    header = ["images", "number", "accuracy, %", "macro F1, %", "cross-entropy, nats", "calibration error"]
    synthetic = (
        " The images are SYNTHETIC: rendered shapes that say nothing about CIFAR-10." if run.data.is_synthetic else ""
    )
    params = sum(p.numel() for p in run.model.parameters())
    fit = run.result.get("fit", {})
    seconds = f" Training took {fit['seconds']:,.0f} s for {fit.get('epochs', '?')} epochs." if "seconds" in fit else ""
    text = (
        f"{type(run.model.net).__name__} of {params:,} weights, seed {run.result.get('seed', 'unknown')}, one run."
        f"{seconds} All that follows is of {len(found.labels):,} {found.split} images, each as it is, without "
        f"test-time augmentation.{synthetic}"
    )
    return Section("Result", [Text(text), Table(header, rows, "Accuracy and calibration")])


def learning(run: LoadedRun, found: Findings) -> Section | None:
    """Curves over epochs."""
    names = [n for n in ("train/loss", "val/loss", "train/acc", "val/acc") if n in run.history]
    if not names:
        return None
    epochs = len(run.history[names[0]])
    rows = [[str(e + 1), *(digits(run.history[name][e]) for name in names)] for e in range(epochs)]
    gap = generalisation_gap(run.history)
    text = (
        "Training accuracy is that of augmented images while the weights still moved; validation accuracy that of the "
        "weights at the end of each epoch."
    )
    if gap:
        text += (
            f" The gap between them ended at {100 * gap[-1]:.1f} points; its largest value was {100 * max(gap):.1f}."
        )
    picture = Picture(
        "curves",
        plot_curves(run.history, f"Learning curves, {run.name}"),
        f"Two charts over {epochs} epochs: cross-entropy and accuracy of training and validation.",
        Table(["epoch", *names], rows, "Learning curves"),
    )
    return Section("How it learned", [Text(text), picture])


def confusions(run: LoadedRun, found: Findings, images: int) -> Section:
    """Which classes are taken for which."""
    where = of(run, found)
    counts = [[name, *(str(n) for n in row)] for name, row in zip(CLASSES, found.confusion.tolist(), strict=True)]
    parts: list[Text | Table | Picture] = [
        Picture(
            "confusion",
            plot_confusion(found.confusion, CLASSES, f"Confusion matrix, {where}"),
            "Confusion matrix: true classes in rows, predicted classes in columns.",
            Table(["true class", *CLASSES], counts, "Images of each true class (row) by predicted class (column)"),
        )
    ]
    pairs = confused_pairs(found.confusion, 10)
    if pairs:
        rows = [
            [f"{CLASSES[p.label]} taken for {CLASSES[p.prediction]}", str(p.images), percent(p.share, 1)] for p in pairs
        ]
        parts.append(Table(["confusion", "images", "of the true class, %"], rows, "The most frequent confusions"))
    for i, pair in enumerate(pairs[:PAIRS]):
        both = (found.labels == pair.label) & (found.predictions == pair.prediction)
        examples = both.nonzero()[: -(-images // 3), 0]
        words = f"{CLASSES[pair.label]} taken for {CLASSES[pair.prediction]}"
        parts.append(gallery(f"pair{i + 1}", found, examples, f"{words}, {where}"))
    return Section("What it takes for what", parts)


def classes(run: LoadedRun, found: Findings) -> Section:
    """Scores of each class."""
    rows = [
        [name, percent(recall, 1), percent(precision, 1), percent(f1, 1), f"{n:,}"]
        for name, (precision, recall, f1, n) in zip(CLASSES, class_scores(found.confusion), strict=True)
    ]
    header = ["class", "accuracy (recall), %", "precision, %", "F1, %", "images"]
    return Section("Class by class", [Table(header, rows, f"Scores of each class, {of(run, found)}")])


def gallery(name: str, found: Findings, rows: Tensor, title: str) -> Picture:
    """A grid of images, with the numbers behind it."""
    cells = [
        [
            str(row),
            CLASSES[int(found.labels[row])],
            CLASSES[int(found.predictions[row])],
            f"{found.probabilities[row].max():.4f}",
            f"{found.probabilities[row, found.labels[row]]:.4f}",
        ]
        for row in rows.tolist()
    ]
    header = ["index in the split", "true class", "predicted class", "its probability", "probability of the true class"]
    figure = plot_predictions(
        found.images[rows], found.labels[rows], found.logits[rows], CLASSES, title, count_wrong=False
    )
    return Picture(name, figure, f"{title}: {len(rows)} images.", Table(header, cells, title))


def galleries(run: LoadedRun, found: Findings, images: int) -> Section:
    """Images at the ends of the scale."""
    kinds = (
        ("mistakes", "Most confident mistakes", confident_mistakes),
        ("hardest", "Hardest images (lowest probability of the true class)", hardest),
        ("easiest", "Easiest images (highest probability of the true class)", easiest),
    )
    parts: list[Text | Table | Picture] = []
    for name, words, choose in kinds:
        rows = choose(found.probabilities, found.labels, images)
        if len(rows):
            parts.append(gallery(name, found, rows, f"{words}, {of(run, found)}"))
        else:
            parts.append(Text(f"{words}: none."))
    return Section("Its mistakes, and the ends of the scale", parts)


def trust(run: LoadedRun, found: Findings) -> Section:
    """Whether the confidence can be believed."""
    calibration = found.calibration
    diagrams: dict[str, Reliability] = {"as trained": calibration.before}
    if calibration.after is None:
        text = "No images were held out of the training, so there are none to fit a temperature to."
    else:
        diagrams[f"at temperature {calibration.temperature:.2f}"] = calibration.after
        which = (
            "every second validation image; shown are the others" if found.split == "val" else "the validation images"
        )
        sure = "too sure of itself" if calibration.temperature > 1 else "less sure than it might be"
        text = (
            f"Logits divided by {calibration.temperature:.3f} give the lowest cross-entropy on {which}: as it was "
            f"trained, the network is {sure}. The expected calibration error goes from "
            f"{calibration.before.error:.4f} to {calibration.after.error:.4f}."
        )
    rows = []
    n = len(calibration.before.counts)
    for i in range(n):
        row = [f"{i / n:.3f} to {(i + 1) / n:.3f}"]
        for diagram in diagrams.values():
            row += [str(int(diagram.counts[i])), f"{diagram.confidence[i]:.4f}", f"{diagram.accuracy[i]:.4f}"]
        rows.append(row)
    header = ["confidence"] + [
        f"{column}, {name}" for name in diagrams for column in ("images", "confidence", "accuracy")
    ]
    picture = Picture(
        "reliability",
        plot_reliability(diagrams, f"Reliability, {of(run, found)}"),
        "Accuracy against confidence in 15 bins, beside the diagonal of perfect calibration, and images in each bin.",
        Table(header, rows, "Reliability"),
    )
    return Section("Can its confidence be trusted?", [Text(text), picture])


def stability(run: LoadedRun, found: Findings) -> Section | None:
    """How smoothly the training went."""
    names = {
        "step/loss": "training loss, nats",
        "step/gradient_norm": "gradient norm",
        "step/lr": "learning rate",
    }
    curves = {words: run.steps[tag] for tag, words in names.items() if tag in run.steps}
    if not curves:
        return None
    parts: list[Text | Table | Picture] = []
    if "step/loss" in run.steps:
        steps, losses = run.steps["step/loss"]
        spikes = [steps[i] for i in loss_spikes(losses)]
        where = f", at steps {', '.join(map(str, spikes[:10]))}" if spikes else ""
        parts.append(
            Text(
                f"{len(spikes)} of the {len(losses)} logged losses lie more than half above the median of the ten "
                f"before them or are not finite{where}. The last is {losses[-1]:.4f}."
            )
        )
    rows = [
        [words, str(len(values)), digits(min(values)), digits(max(values)), digits(values[-1])]
        for words, (_, values) in curves.items()
    ]
    parts.append(
        Picture(
            "steps",
            plot_steps(curves, f"Training step by step, {run.name}"),
            "Loss, gradient norm and learning rate over the optimizer steps.",
            Table(["curve", "points", "least", "greatest", "last"], rows, "Curves over steps"),
        )
    )
    return Section("How smoothly it trained", parts)


def setting(run: LoadedRun, found: Findings) -> Section:
    """Configuration and environment."""
    environment = {**run.result.get("versions", {}), **run.result.get("hardware", {})}
    environment |= {key: run.result[key] for key in ("git_commit", "started", "finished") if key in run.result}
    rows = [[key, str(value)] for key, value in environment.items()]
    table = Table(["what", "value"], rows, "Versions, hardware and times of the training")
    return Section("How to repeat it", [table, Text(run.config, code=True)])
