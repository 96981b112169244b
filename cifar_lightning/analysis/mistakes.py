"""Misclassified, hard and easy images, and pairs of classes that are confused."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Confusion", "confident_mistakes", "confused_pairs", "easiest", "hardest"]


class Confusion(NamedTuple):
    """Images of one class that are predicted as another.

    Attributes:
        label: the true class.
        prediction: the predicted class.
        images: their number.
        share: of all images of the true class.
    """

    label: int
    prediction: int
    images: int
    share: float


def confident_mistakes(probabilities: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the indices of the mistakes of highest confidence in falling order, int64.

    Args:
        probabilities: float (N, C).
        labels: int64 (N,).
        count: largest number to return.
    """
    confidences, predictions = probabilities.max(1)
    wrong = (predictions != labels).nonzero()[:, 0]
    return wrong[confidences[wrong].argsort(descending=True, stable=True)[:count]]


def hardest(probabilities: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the indices of at most `count` images whose true class has the lowest probability, in rising order."""
    return truths(probabilities, labels).argsort(stable=True)[:count]


def easiest(probabilities: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the indices of at most `count` images whose true class has the highest probability, in falling order."""
    return truths(probabilities, labels).argsort(descending=True, stable=True)[:count]


def truths(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the probability of the true class of each image, (N,)."""
    return probabilities.gather(1, labels[:, None])[:, 0]


def confused_pairs(matrix: Tensor, count: int) -> list[Confusion]:
    """Return the most frequent confusions in falling order, without empty ones.

    Args:
        matrix: int64 (C, C), true classes in rows and predicted classes in columns.
        count: largest number to return.
    """
    totals = matrix.sum(1).tolist()
    wrong = matrix.clone()
    wrong.fill_diagonal_(0)
    found = []
    for cell in wrong.flatten().argsort(descending=True, stable=True)[:count].tolist():
        label, prediction = divmod(cell, len(matrix))
        if n := int(wrong[label, prediction]):
            found.append(Confusion(label, prediction, n, n / totals[label]))
    return found
