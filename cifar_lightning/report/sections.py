"""Findings in words, tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cifar_lightning import CLASSES
from cifar_lightning.analysis.calibration import Reliability, plot_reliability
from cifar_lightning.analysis.confusion import plot_confusion
from cifar_lightning.analysis.curves import generalisation_gap, loss_spikes, plot_curves, plot_steps
from cifar_lightning.analysis.embedding import embed
from cifar_lightning.analysis.explain import plot_embedding, plot_explanations
from cifar_lightning.analysis.filters import plot_filters
from cifar_lightning.analysis.gallery import plot_predictions
from cifar_lightning.analysis.layers import plot_feature_maps
from cifar_lightning.analysis.mistakes import confident_mistakes, confused_pairs, easiest, hardest
from cifar_lightning.analysis.probes import plot_probes
from cifar_lightning.report.findings import Explained, Findings
from cifar_lightning.report.page import Picture, Section, Table, Text
from cifar_lightning.report.run import LoadedRun

__all__ = ["class_scores", "run_sections"]

IMAGES = 24
"""Images in a gallery."""
PAIRS, OF_EACH_PAIR = 4, 8


def run_sections(run: LoadedRun, found: Findings, number: int = 0) -> list[Section]:
    """Everything about one run, in the order in which a person asks.

    Args:
        run: the run.
        found: what was found out about it.
        number: of the run among several on the page, from 1; 0 where it is alone.
    """
    makers: list[Callable[[LoadedRun, Findings], Section | None]] = [
        headline,
        learning,
        confusions,
        classes,
        galleries,
        trust,
        filters,
        depth,
        attention,
        separation,
        cost,
        stability,
        setting,
    ]
    sections = [section for make in makers if (section := make(run, found)) is not None]
    if not number:
        return sections
    return [
        Section(
            f"{run.name}: {section.title}",
            [
                replace(part, name=f"run{number}_{part.name}") if isinstance(part, Picture) else part
                for part in section.parts
            ],
        )
        for section in sections
    ]


def percent(share: float, places: int = 2) -> str:
    """A share as percent."""
    return f"{100 * share:.{places}f}"


def of(run: LoadedRun, found: Findings) -> str:
    """Run, number of images and split, and whether they are synthetic: what every title says."""
    return (
        f"{run.name}, {len(found.labels):,} {found.split} {'SYNTHETIC images' if run.data.is_synthetic else 'images'}"
    )


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


def confusions(run: LoadedRun, found: Findings) -> Section:
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
        examples = both.nonzero()[:OF_EACH_PAIR, 0]
        words = f"{CLASSES[pair.label]} taken for {CLASSES[pair.prediction]}"
        parts.append(gallery(f"pair{i + 1}", found, examples, f"{words}, {where}"))
    return Section("What it takes for what", parts)


def class_scores(matrix: Tensor) -> list[tuple[float, float, float, int]]:
    """Precision, recall, F1 and number of images of each class; a score without a denominator is 0.

    Args:
        matrix: int64 (C, C), true classes in rows and predicted classes in columns.
    """
    scores = []
    for index in range(len(matrix)):
        hits, predicted, true = (int(n) for n in (matrix[index, index], matrix[:, index].sum(), matrix[index].sum()))
        precision, recall = hits / max(predicted, 1), hits / max(true, 1)
        scores.append((precision, recall, 2 * hits / max(predicted + true, 1), true))
    return scores


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


def galleries(run: LoadedRun, found: Findings) -> Section:
    """Images at the ends of the scale."""
    kinds = (
        ("mistakes", "Most confident mistakes", confident_mistakes),
        ("hardest", "Hardest images (lowest probability of the true class)", hardest),
        ("easiest", "Easiest images (highest probability of the true class)", easiest),
    )
    parts: list[Text | Table | Picture] = []
    for name, words, choose in kinds:
        rows = choose(found.probabilities, found.labels, IMAGES)
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


def filters(run: LoadedRun, found: Findings) -> Section:
    """The first layer and what the layers make of an image."""
    name, row = run.name, found.feature_map_row
    weights = run.model.net.first_filters().detach()
    words = f"{len(weights)} filters of {weights.shape[-2]}×{weights.shape[-1]} pixels; grey is zero."
    shown = f"Feature maps of {found.split} image {row} ({CLASSES[int(found.labels[row])]}), {name}"
    rows = [
        [
            layer,
            f"{s.mean:.3f}",
            f"{s.std:.3f}",
            percent(s.dead, 1),
            "×".join(map(str, found.feature_maps[layer].shape)),
        ]
        for layer, s in found.layers.items()
    ]
    header = ["layer", "mean", "standard deviation", "dead units, %", "shape of the output"]
    return Section(
        "What it sees",
        [
            Picture("filters", plot_filters(weights, f"First-layer filters, {name}"), f"First-layer filters: {words}"),
            Picture(
                "feature_maps",
                plot_feature_maps(found.images[row], found.feature_maps, shown),
                f"{shown}: for each layer the maps that vary most.",
                Table(header, rows, "Activations of each layer; a dead unit puts out the same for every image"),
            ),
        ],
    )


def depth(run: LoadedRun, found: Findings) -> Section:
    """Linear probes."""
    values = list(found.probes.values())
    best = max(found.probes, key=lambda name: found.probes[name])
    text = (
        "A linear classifier (ridge regression onto the labels) is fitted to what each layer makes of training images, "
        f"averaged over places to at most 1,024 numbers, and tried on the {found.split} images. On the pixels it "
        f"reaches {percent(values[0], 1)} %, on {best} {percent(found.probes[best], 1)} %; the network itself reaches "
        f"{percent(found.accuracy, 1)} %."
    )
    rows = [[name, percent(value)] for name, value in found.probes.items()] + [["the network", percent(found.accuracy)]]
    picture = Picture(
        "probes",
        plot_probes(found.probes, found.accuracy, f"Linear probes, {of(run, found)}"),
        "Accuracy of a linear classifier on the pixels and on each layer, in the order of depth.",
        Table(["layer", "accuracy, %"], rows, "Linear probes"),
    )
    return Section("How depth separates the classes", [Text(text), picture])


def attention(run: LoadedRun, found: Findings) -> Section:
    """Where it looks."""
    how = " and Grad-CAM (places whose features speak for it)" if found.hits.cam is not None else ""
    text = f"For the predicted class: the magnitude of the gradient of its logit at each pixel{how}."
    parts: list[Text | Table | Picture] = [Text(text)]
    kinds: Sequence[tuple[str, str, Explained]] = (
        ("hits", "Images that it gets right", found.hits),
        ("misses", "Its most confident mistakes", found.misses),
    )
    for name, words, shown in kinds:
        if not len(shown.indices):
            parts.append(Text(f"{words}: none."))
            continue
        labels, predictions = found.labels[shown.indices].tolist(), found.predictions[shown.indices].tolist()
        names = [
            CLASSES[p] if p == y else f"{CLASSES[p]}\n(is {CLASSES[y]})"
            for y, p in zip(labels, predictions, strict=True)
        ]
        title = f"{words}, {of(run, found)}"
        figure = plot_explanations(found.images[shown.indices], names, shown.saliency, shown.cam, title)
        listed = ", ".join(name.replace("\n", " ") for name in names)
        parts.append(Picture(name, figure, f"{title}: {listed}."))
    return Section("Where it looks", parts)


def separation(run: LoadedRun, found: Findings) -> Section:
    """A map of the features."""
    labels = found.labels[found.feature_rows]
    title = f"Penultimate features by t-SNE, {run.name}, {len(labels):,} {found.split} images"
    figure = plot_embedding(embed(found.features), labels, CLASSES, title)
    return Section(
        "How its features lie", [Picture("features", figure, f"{title}: one point an image, one colour a class.")]
    )


def cost(run: LoadedRun, found: Findings) -> Section:
    """What each layer costs."""
    total = sum(c.seconds for c in found.costs.values())
    rows = [
        [name, f"{c.params:,}", f"{c.flops / 1e6:,.1f}", f"{1e6 * c.seconds:,.1f}", percent(c.seconds / total, 1)]
        for name, c in found.costs.items()
    ]
    params, flops = (sum(values) for values in zip(*((c.params, c.flops) for c in found.costs.values()), strict=True))
    rows.append(["all", f"{params:,}", f"{flops / 1e6:,.1f}", f"{1e6 * total:,.1f}", "100.0"])
    header = ["layer", "weights", "MFLOP an image", "µs an image", "of the time, %"]
    caption = (
        f"Cost of a forward pass in batches of 250 on {run.model.device}; a multiplication and an addition are two FLOP"
    )
    return Section("What it costs", [Table(header, rows, caption)])


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


def digits(value: float) -> str:
    """Four significant digits, or nothing."""
    return "" if math.isnan(value) else f"{value:.4g}"
