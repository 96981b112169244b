"""Statistics over seeds (mean, interval, paired t-test, Holm) and over images (intervals, McNemar's test)."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

__all__ = ["PairedTest", "Summary", "holm", "mcnemar", "paired_interval", "paired_tests", "summarise", "wilson"]


@dataclass(frozen=True)
class Summary:
    """Values of one group.

    Attributes:
        n: number of values.
        mean: their mean.
        std: their sample standard deviation (n - 1); None for one value.
        half_width: of the 95 % interval of the mean by Student's t; None for one value.
    """

    n: int
    mean: float
    std: float | None
    half_width: float | None


def summarise(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Return the mean, the standard deviation and the interval of the mean.

    Args:
        values: at least one.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: without values.
    """
    if not values:
        raise ValueError("Expected at least one value to summarise, got none.")
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Summary(1, mean, None, None)
    std = statistics.stdev(values)
    return Summary(n, mean, std, float(stats.t.ppf((1 + confidence) / 2, n - 1)) * std / math.sqrt(n))


@dataclass(frozen=True)
class PairedTest:
    """A t-test on the differences between two groups, seed by seed.

    Attributes:
        first: name of a group.
        second: name of the other.
        n: seeds that both have.
        difference: mean of first minus second.
        p: two-sided p-value; NaN if all differences are 0.
        adjusted: p-value after Holm's correction for all tests of the table.
    """

    first: str
    second: str
    n: int
    difference: float
    p: float
    adjusted: float


def paired_tests(
    groups: Mapping[str, Mapping[int, float]], pairs: Sequence[tuple[str, str]] | None = None
) -> list[PairedTest]:
    """Test pairs of groups that share at least two seeds.

    Args:
        groups: values by name and seed.
        pairs: names of the groups to test; default: all pairs. P-values are corrected for these tests.
    """
    found = []
    for first, second in itertools.combinations(groups, 2) if pairs is None else pairs:
        a, b = groups[first], groups[second]
        seeds = sorted(a.keys() & b.keys())
        if len(seeds) < 2:
            continue
        differences = [a[seed] - b[seed] for seed in seeds]
        mean = statistics.fmean(differences)
        if statistics.pstdev(differences) == 0:  # scipy would divide by it
            p = math.nan if mean == 0 else 0.0
        else:
            p = float(stats.ttest_1samp(differences, 0.0).pvalue)
        found.append((first, second, len(seeds), mean, p))
    adjusted = holm([test[-1] for test in found])
    return [PairedTest(*test, p) for test, p in zip(found, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979, Scandinavian Journal of Statistics 6), ignoring NaN."""
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int, float]:
    """Compare two networks on the same images (McNemar 1947, Psychometrika 12), by the exact binomial test.

    Args:
        first: whether the first network is right, for each image.
        second: whether the second is.

    Returns:
        Number of images that only the first network gets right, the same of the second, and the two-sided p-value,
        which is 1 if both are right on the same images.
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    if not only_first + only_second:
        return 0, 0, 1.0
    return only_first, only_second, float(stats.binomtest(only_first, only_first + only_second).pvalue)


def wilson(accuracy: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of an accuracy that was measured on n images (Wilson 1927, JASA 22).

    It is about other images like these, for one network; other seeds are another matter.

    Args:
        accuracy: in [0, 1].
        n: at least 1.
        confidence: of the interval, in (0, 1).
    """
    found = stats.binomtest(round(accuracy * n), n).proportion_ci(confidence, "wilson")
    return float(found.low), float(found.high)


def paired_interval(only_first: int, only_second: int, n: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same images, and its interval.

    The interval is that of Wald with half an image more in each cell (Agresti and Min 2005, Statistics in Medicine 24).

    Args:
        only_first: images that only the first network gets right.
        only_second: the same of the second.
        n: all images.
        confidence: of the interval, in (0, 1).

    Returns:
        The accuracy of the first minus that of the second, and the ends of the interval.
    """
    first, second, total = only_first + 0.5, only_second + 0.5, n + 2
    centre = (first - second) / total
    spread = math.sqrt(first + second - (first - second) ** 2 / total) / total
    half = float(stats.norm.ppf((1 + confidence) / 2)) * spread
    return (only_first - only_second) / n, max(-1.0, centre - half), min(1.0, centre + half)
