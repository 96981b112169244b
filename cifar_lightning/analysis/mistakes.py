"""Which images a network gets wrong, and which classes it takes for each other."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Confusion", "confident_mistakes", "confused_pairs", "easiest", "hardest"]


class Confusion(NamedTuple):
    """One way to be wrong.

    Attributes:
        label: the true class.
        prediction: the class it was taken for.
        images: how many.
        share: of the images of the true class.
    """

    label: int
    prediction: int
    images: int
    share: float


def confident_mistakes(probabilities: Tensor, labels: Tensor, count: int) -> Tensor:
    """Indices of the wrong predictions of highest probability, highest first; int64, at most `count`.

    Args:
        probabilities: float (N, C).
        labels: int64 (N,).
        count: how many to return at most.
    """
    confidences, predictions = probabilities.max(1)
    wrong = (predictions != labels).nonzero()[:, 0]
    return wrong[confidences[wrong].argsort(descending=True, stable=True)[:count]]


def hardest(probabilities: Tensor, labels: Tensor, count: int) -> Tensor:
    """Indices of the images whose true class got the lowest probability, lowest first; int64, at most `count`."""
    return truths(probabilities, labels).argsort(stable=True)[:count]


def easiest(probabilities: Tensor, labels: Tensor, count: int) -> Tensor:
    """Indices of the images whose true class got the highest probability, highest first; int64, at most `count`."""
    return truths(probabilities, labels).argsort(descending=True, stable=True)[:count]


def truths(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Probability of the true class of each image, (N,)."""
    return probabilities.gather(1, labels[:, None])[:, 0]


def confused_pairs(matrix: Tensor, count: int) -> list[Confusion]:
    """The cells off the diagonal with the most images, largest first; empty ones are left out.

    Args:
        matrix: int64 (C, C), true classes in rows and predicted classes in columns.
        count: how many to return at most.
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
