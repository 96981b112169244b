"""The section about corrupted images."""

from __future__ import annotations

import statistics

from cifar_lightning import CLASSES
from cifar_lightning.analysis.corruptions import plot_corruptions, words
from cifar_lightning.analysis.gallery import plot_predictions
from cifar_lightning.data.corrupted import CorruptedImages
from cifar_lightning.data.corruptions import SEVERITIES
from cifar_lightning.data.split import evenly_spaced
from cifar_lightning.pages import Picture, Section, Table, Text
from cifar_lightning.report.examination import Examination

__all__ = ["corruptions"]

LOOKED_AT = 500
"""Test images from which examples are chosen."""
SEVERITY = 3
"""Of the examples."""


def corruptions(exam: Examination) -> Section | str:
    """Return the accuracy under corruptions, and mistakes under the worst one."""
    found = exam.run.result.get("corruptions")
    if found is None:
        return f"Corruptions: `test --run {exam.run.folder} --corruptions` measures them."
    by_name, clean = found["accuracy"], found["clean"]
    means = {name: statistics.fmean(values) for name, values in by_name.items()}
    text = (
        f"The mean accuracy over {len(by_name)} corruptions in {len(SEVERITIES)} severities is "
        f"{100 * found['mean']:.1f} %, on {found['images']:,} test images that give {100 * clean:.1f} % as they are. "
    )
    made = [words(name) for name in by_name if name not in found["published_files"]]
    if made:
        text += (
            f"Made as CIFAR-10-C was{'' if len(made) == len(by_name) else ': ' + ', '.join(made)}, but not its files: "
            "numbers of other works differ a little. "
        )
    rows = [
        [words(name), *(f"{100 * value:.1f}" for value in (*by_name[name], means[name]))]
        for name in sorted(means, key=means.__getitem__, reverse=True)
    ]
    table = Table(["corruption", *map(str, SEVERITIES), "mean"], rows, "Accuracy by severity, %")
    figure = plot_corruptions(by_name, clean, f"Accuracy under corruptions, {exam.name}")
    picture = Picture("corruptions", figure, "Accuracy under each corruption (row) by severity (column).", table)
    worst = min(means, key=means.__getitem__)
    return Section("Corruptions", [Text(text), picture, examples(exam, worst)])


def examples(exam: Examination, name: str) -> Picture | Text:
    """Return images that the network gets right as they are, and wrong with the highest confidence when corrupted."""
    test = exam.image_set("test")
    rows = evenly_spaced(len(test), LOOKED_AT)
    images = CorruptedImages(test, rows, exam.data.root).get(name, SEVERITY)
    labels = test.labels[rows]
    right = exam.logits_of(test.images[rows]).argmax(1) == labels
    logits = exam.logits_of(images)
    surest, predicted = logits.softmax(1).max(1)
    wrong = (right & (predicted != labels)).nonzero()[:, 0]
    chosen = wrong[surest[wrong].argsort(descending=True, stable=True)][: exam.gallery_images]
    title = f"Right as they are, wrong under {words(name)} of severity {SEVERITY}"
    if not len(chosen):
        return Text(f"{title}: none of {len(rows):,} test images.")
    cells = [
        [str(int(rows[i])), CLASSES[int(labels[i])], CLASSES[int(predicted[i])], f"{surest[i]:.4f}"]
        for i in chosen.tolist()
    ]
    header = ["index in the split", "true class", "predicted class", "its probability"]
    figure = plot_predictions(images[chosen], labels[chosen], logits[chosen], CLASSES, f"{title}, {exam.name}")
    return Picture("corrupted", figure, f"{title}: {len(chosen)} images.", Table(header, cells, title))
