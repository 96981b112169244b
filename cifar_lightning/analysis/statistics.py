"""What runs over several seeds, and predictions of two networks, allow to say."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

__all__ = ["PairedTest", "Summary", "holm", "mcnemar", "paired_tests", "summarise"]


@dataclass(frozen=True)
class Summary:
    """Values of one group.

    Attributes:
        n: how many.
        mean: their mean.
        std: their standard deviation with n - 1 below; None for one value.
        half_width: of the 95 % interval of the mean by Student's t; None for one value.
    """

    n: int
    mean: float
    std: float | None
    half_width: float | None


def summarise(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Mean, standard deviation and interval.

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
        p: two-sided probability of so large a difference, if there is none; NaN where all differences are equal to 0.
        adjusted: the same after Holm's correction for all tests of the table.
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
    """Tests two groups at a time, where they share at least two seeds.

    Args:
        groups: name to seed to value.
        pairs: names of the groups to test; default: every two. P-values are corrected for these tests.
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
    """P-values adjusted for their number (Holm 1979, Scandinavian Journal of Statistics 6); NaN counts as no test."""
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int, float]:
    """Compares two networks on the same images (McNemar 1947, Psychometrika 12), by the exact binomial test.

    Args:
        first: whether one network is right, image by image.
        second: whether the other is.

    Returns:
        Images that only the first, and that only the second gets right, and the two-sided p-value; 1 where they are
        right on the same images.
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    if not only_first + only_second:
        return 0, 0, 1.0
    return only_first, only_second, float(stats.binomtest(only_first, only_first + only_second).pvalue)
