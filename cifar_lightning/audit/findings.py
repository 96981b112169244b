"""What an audit finds, as tables and numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cifar_lightning import CLASSES
from cifar_lightning.analysis.duplicates import Pairs, near_duplicates
from cifar_lightning.analysis.label_errors import suspects
from cifar_lightning.audit.networks import Network, out_of_sample
from cifar_lightning.data.split import ImageSet, SourceSplit

__all__ = ["DUPLICATE_SCORE", "Findings", "Labels", "find"]

DUPLICATE_SCORE = 0.55
"""Pairs with at least this score count as near duplicates in numbers; lists go on further."""
LISTED = 2000
"""Most pairs, and most suspects, of each kind in the lists."""
ODD = 100
"""Odd images of each split in the list."""
Kind = tuple[SourceSplit, SourceSplit]


@dataclass(frozen=True)
class Labels:
    """Labels of a split, the likeliest errors first.

    Attributes:
        indices: int64 (N,), in the split.
        guesses: int64 (N,), the likeliest other class.
        probabilities: float32 (N,), of that class.
        margins: float32 (N,), probability of the label less that of the guess.
        estimated: the number of errors that confident learning estimates.
    """

    indices: Tensor
    guesses: Tensor
    probabilities: Tensor
    margins: Tensor
    estimated: int


@dataclass(frozen=True)
class Findings:
    """What was found in a data set.

    Attributes:
        sets: the images by split.
        files: their names by split; empty names where several images share a file.
        duplicates: pairs by the splits of the first and the second image.
        labels: by split; a split whose images all networks have trained on is missing.
    """

    sets: dict[SourceSplit, ImageSet]
    files: Mapping[SourceSplit, Sequence[str]]
    duplicates: dict[Kind, Pairs]
    labels: dict[SourceSplit, Labels]

    def odd(self, split: SourceSplit) -> Tensor:
        """Return the images of a split that are least like any other of it, int64."""
        return self.duplicates[split, split].loneliness.argsort(descending=True, stable=True)[:ODD]

    def near(self, kind: Kind) -> int:
        """Return how many pairs count as near duplicates."""
        return int((self.duplicates[kind].score >= DUPLICATE_SCORE).sum())

    def doubtful(self) -> dict[str, list[int]]:
        """Return the test images that a test accuracy may leave out, by reason."""
        pairs = self.duplicates["test", "train"]
        near = pairs.first[pairs.score >= DUPLICATE_SCORE].unique()
        found = {"near_duplicates": near.tolist()}
        if "test" in self.labels:
            labels = self.labels["test"]
            found["suspects"] = labels.indices[: labels.estimated].sort().values.tolist()
        return found

    def numbers(self) -> dict[str, Any]:
        """Return the numbers for `audit.json`."""
        return {
            "images": {split: len(images) for split, images in self.sets.items()},
            "classes": {split: torch.bincount(s.labels, minlength=10).tolist() for split, s in self.sets.items()},
            "duplicate_score": DUPLICATE_SCORE,
            "near_duplicates": {"-".join(kind): self.near(kind) for kind in self.duplicates},
            "label_errors": {
                split: {"judged": len(labels.indices), "estimated": labels.estimated}
                for split, labels in self.labels.items()
            },
            "test": self.doubtful(),
        }

    def duplicates_csv(self) -> str:
        """Return the pairs of all kinds, the likeliest duplicates first."""
        rows = []
        for (split, other), pairs in self.duplicates.items():
            columns = (pairs.first, pairs.second, pairs.score, pairs.cosine)
            for first, second, score, cosine in zip(*(column[:LISTED].tolist() for column in columns), strict=True):
                rows.append((score, cosine, self._named(split, first), self._named(other, second)))
        rows.sort(key=lambda row: -row[0])
        header = ["split", "index", "file", "label"]
        return as_csv(
            [*header, *(f"other_{name}" for name in header), "score", "cosine"],
            [[*first, *second, f"{score:.4f}", f"{cosine:.4f}"] for score, cosine, first, second in rows],
        )

    def labels_csv(self) -> str:
        """Return the suspects of each split, the likeliest errors first."""
        rows = []
        for split, labels in self.labels.items():
            columns = (labels.indices, labels.guesses, labels.probabilities, labels.margins)
            for index, guess, share, margin in zip(*(column[:LISTED].tolist() for column in columns), strict=True):
                rows.append([*self._named(split, index), CLASSES[guess], f"{share:.4f}", f"{margin:.4f}"])
        return as_csv(["split", "index", "file", "label", "guess", "probability", "margin"], rows)

    def odd_csv(self) -> str:
        """Return the odd images of each split, the oddest first."""
        rows = []
        for split in self.sets:
            loneliness = self.duplicates[split, split].loneliness
            rows += [[*self._named(split, i), f"{loneliness[i]:.4f}"] for i in self.odd(split).tolist()]
        return as_csv(["split", "index", "file", "label", "loneliness"], rows)

    def _named(self, split: SourceSplit, index: int) -> list[str]:
        return [split, str(index), self.files[split][index], CLASSES[int(self.sets[split].labels[index])]]


def find(
    networks: Sequence[Network], sets: dict[SourceSplit, ImageSet], files: Mapping[SourceSplit, Sequence[str]]
) -> Findings:
    """Look for near duplicates, label errors and odd images.

    Args:
        networks: The features of the first find duplicates, the mean probabilities of all label errors.
        sets: The training and the test images.
        files: Their names.

    Raises:
        ValueError: Without cleanlab.
    """
    rows: dict[SourceSplit, list[Tensor]] = {
        "test": [torch.arange(len(sets["test"])) for _ in networks],
        "train": [network.held_out(sets["train"]) for network in networks],
    }
    judged = {split: judge(networks, sets[split], rows[split]) for split in rows}
    labels = {split: found for split, found in judged.items() if found is not None}
    features = networks[0].features
    test, train = (features(sets[split].images) for split in ("test", "train"))
    mirrored = features(sets["test"].images.flip(3))
    duplicates: dict[Kind, Pairs] = {
        ("test", "train"): near_duplicates(test, mirrored, train),
        ("test", "test"): near_duplicates(test, mirrored),
        ("train", "train"): near_duplicates(train, features(sets["train"].images.flip(3))),
    }
    return Findings(sets, files, duplicates, labels)


def judge(networks: Sequence[Network], images: ImageSet, rows: Sequence[Tensor]) -> Labels | None:
    """Rank the labels of a set by how likely they are wrong; None where the networks have trained on all images."""
    judged, probabilities = out_of_sample(networks, images, rows)
    if not len(judged):
        return None
    labels = images.labels[judged]
    order, margins, estimated = suspects(labels, probabilities)
    shares, guesses = probabilities.scatter(1, labels[:, None], -1.0).max(1)
    return Labels(judged[order], guesses[order], shares[order], margins, estimated)


def as_csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
