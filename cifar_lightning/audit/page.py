"""The page of an audit."""

from __future__ import annotations

import torch

from cifar_lightning import CLASSES
from cifar_lightning.analysis.duplicates import Pairs
from cifar_lightning.analysis.gallery import plot_captioned
from cifar_lightning.audit.findings import DUPLICATE_SCORE, Findings, Kind
from cifar_lightning.data.split import SourceSplit
from cifar_lightning.pages import Page, Picture, Section, Table, Text

__all__ = ["make_page"]

SHOWN = 24
"""Pairs, suspects and odd images in each figure."""
WORDS: dict[SourceSplit, str] = {"train": "training", "test": "test"}


def make_page(findings: Findings, runs: list[str], source: str) -> Page:
    """Return the page of an audit.

    Args:
        findings: What was found.
        runs: Titles of the networks.
        source: What the images are.
    """
    counts = " and ".join(f"{len(images):,} {WORDS[split]}" for split, images in findings.sets.items())
    about = Text(
        f"{counts} images ({source}), seen by {len(runs)} trained network{'s' if len(runs) > 1 else ''}: "
        f"{', '.join(runs)}. A computer ranks, people judge: look at the pictures before anything is removed. The "
        "lists are beside this page: duplicates.csv, label_errors.csv and odd.csv."
    )
    sections = [Section("What was looked at", [about, balance(findings)])]
    sections += [duplicates(findings, kind) for kind in findings.duplicates]
    sections += [label_errors(findings, split) for split in findings.labels]
    if "train" not in findings.labels:
        text = (
            "Labels of training images were not judged: all networks have trained on them. Train some that hold them "
            "out, `sweep configs/sweeps/folds.yaml`, and give their folder to `audit --run`."
        )
        sections.append(Section("Labels of training images", [Text(text)]))
    sections += [odd(findings, split) for split in findings.sets]
    return Page("An audit of the images and labels", sections)


def balance(findings: Findings) -> Table:
    """Return how many images each class has."""
    counts = {split: torch.bincount(s.labels, minlength=len(CLASSES)).tolist() for split, s in findings.sets.items()}
    rows = [[name, *(f"{counts[split][i]:,}" for split in counts)] for i, name in enumerate(CLASSES)]
    return Table(["class", *(f"{WORDS[split]} images" for split in counts)], rows, "Images of each class")


def duplicates(findings: Findings, kind: Kind) -> Section:
    """Return the most similar pairs of two splits."""
    pairs, (split, other) = findings.duplicates[kind], kind
    words = f"{WORDS[split]} and {WORDS[other]} images" if split != other else f"{WORDS[split]} images"
    title = f"Near duplicates: {words}"
    text = (
        f"{findings.near(kind):,} pairs have a score of at least {DUPLICATE_SCORE}, where 1 means the same features, "
        "and 0 no nearer than next neighbours usually are."
    )
    if not len(pairs):
        return Section(title, [Text(text)])
    return Section(title, [Text(text), pictured(findings, kind, pairs)])


def pictured(findings: Findings, kind: Kind, pairs: Pairs) -> Picture:
    """Return the first pairs as a figure."""
    split, other = kind
    first, second = pairs.first[:SHOWN], pairs.second[:SHOWN]
    mine, theirs = findings.sets[split], findings.sets[other]
    captions = [
        CLASSES[a] if a == b else f"{CLASSES[a]} | {CLASSES[b]}"
        for a, b in zip(mine.labels[first].tolist(), theirs.labels[second].tolist(), strict=True)
    ]
    names = [f"{score:.2f}" for score in pairs.score[:SHOWN].tolist()]
    title = f"The most similar pairs: left {WORDS[split]}, right {WORDS[other]} images"
    gap = torch.full((len(first), 3, mine.images.shape[2], 2), 255, dtype=torch.uint8)
    joined = torch.cat([mine.images[first], gap, theirs.images[second]], 3)
    figure = plot_captioned(joined, names, captions, title)
    rows = [
        [str(rank + 1), str(a), str(b), name, caption]
        for rank, (a, b, name, caption) in enumerate(zip(first.tolist(), second.tolist(), names, captions, strict=True))
    ]
    table = Table(["rank", f"index in {split}", f"index in {other}", "score", "label"], rows, title)
    return Picture(f"duplicates-{split}-{other}", figure, f"{title}, with scores and labels.", table)


def label_errors(findings: Findings, split: SourceSplit) -> Section:
    """Return the labels of a split that are most likely wrong."""
    labels = findings.labels[split]
    images = findings.sets[split]
    chosen = labels.indices[:SHOWN]
    text = (
        f"Confident learning estimates {labels.estimated:,} wrong labels among {len(labels.indices):,} {WORDS[split]} "
        "images, by networks that did not train on them. The first ones are shown with the class that the networks "
        "name, its probability, and the label. The networks get most of these wrong, so that their accuracy without "
        "them is higher by the choice alone."
    )
    title = f"Labels of {WORDS[split]} images that may be wrong"
    names = [
        f"{CLASSES[guess]} {share:.0%}"
        for guess, share in zip(labels.guesses[:SHOWN].tolist(), labels.probabilities[:SHOWN].tolist(), strict=True)
    ]
    given = [CLASSES[label] for label in images.labels[chosen].tolist()]
    figure = plot_captioned(images.images[chosen], names, [f"label {name}" for name in given], title)
    rows = [[str(i), *cells] for i, *cells in zip(chosen.tolist(), given, names, strict=True)]
    table = Table(["index in the split", "label", "likeliest other class and its probability"], rows, title)
    return Section(title, [Text(text), Picture(f"labels-{split}", figure, f"{title}: the first {len(chosen)}.", table)])


def odd(findings: Findings, split: SourceSplit) -> Section:
    """Return the images of a split that are least like any other."""
    chosen, images = findings.odd(split)[:SHOWN], findings.sets[split]
    title = f"Odd {WORDS[split]} images"
    text = Text("Those whose features are farthest from those of their neighbours.")
    names = [CLASSES[label] for label in images.labels[chosen].tolist()]
    figure = plot_captioned(images.images[chosen], names, [""] * len(names), title)
    rows = [[str(index), name] for index, name in zip(chosen.tolist(), names, strict=True)]
    table = Table(["index in the split", "label"], rows, title)
    return Section(title, [text, Picture(f"odd-{split}", figure, f"{title} with their labels.", table)])
