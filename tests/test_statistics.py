"""Statistics equal those of scipy, or of their definitions, on the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cifar_lightning.analysis.statistics import holm, mcnemar, paired_interval, paired_tests, summarise, wilson

NUMBERS = st.floats(0, 1).map(lambda x: round(x, 4))


@settings(max_examples=25)
@given(st.lists(NUMBERS, min_size=2, max_size=20))
def test_a_summary_is_that_of_scipy(values):
    found = summarise(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    if np.std(values) > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))


def test_one_value_has_no_interval():
    found = summarise([0.5])
    assert (found.n, found.mean, found.std, found.half_width) == (1, 0.5, None, None)
    with pytest.raises(ValueError, match="at least one value"):
        summarise([])


@settings(max_examples=25)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=3, max_size=8))
def test_paired_tests_are_those_of_scipy(rows):
    groups = {name: dict(enumerate(column)) for name, column in zip("abc", zip(*rows, strict=True), strict=True)}
    found = paired_tests(groups)
    assert [(test.first, test.second) for test in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for test in found:
        first, second = (list(groups[name].values()) for name in (test.first, test.second))
        assert test.difference == pytest.approx(np.mean(first) - np.mean(second), abs=1e-12)
        if np.std(np.subtract(first, second)) > 1e-6:
            assert test.p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=1e-9)
    p_values = [test.p for test in found]
    if not any(map(math.isnan, p_values)):
        assert [test.adjusted for test in found] == pytest.approx(holm(p_values))


def test_only_seeds_that_both_have_are_paired():
    groups = {"a": {0: 0.5, 1: 0.6, 2: 0.8}, "b": {1: 0.5, 2: 0.65, 7: 0.1}, "c": {2: 0.3}}
    (found,) = paired_tests(groups)
    assert (found.first, found.second, found.n) == ("a", "b", 2)
    assert found.p == pytest.approx(stats.ttest_rel([0.6, 0.8], [0.5, 0.65]).pvalue)
    assert found.adjusted == found.p


def test_without_spread():
    equal, other = {0: 0.5, 1: 0.5}, {0: 0.25, 1: 0.25}
    assert math.isnan(paired_tests({"a": equal, "b": equal})[0].p)
    assert paired_tests({"a": equal, "b": other})[0].p == 0


def test_only_the_pairs_that_are_asked_for():
    groups = {name: {0: 0.1 * i, 1: 0.1 * i + 0.01 * i * i} for i, name in enumerate("abcd")}
    found = paired_tests(groups, [("d", "a"), ("d", "b")])
    assert [(test.first, test.second) for test in found] == [("d", "a"), ("d", "b")]
    assert [test.adjusted for test in found] == pytest.approx(holm([test.p for test in found]))


@settings(max_examples=25)
@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_holm_is_its_definition(p_values):
    """A hypothesis is rejected at a level if each p-value up to its own is at most the level over those not smaller."""
    ordered = sorted(p_values)
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        up_to = ordered.index(p)
        assert adjusted == pytest.approx(max(min(1, (len(ordered) - i) * ordered[i]) for i in range(up_to + 1)))


def test_a_test_that_could_not_be_made_is_not_corrected_for():
    corrected = holm([0.01, math.nan, 0.04])
    assert math.isnan(corrected[1])
    assert [corrected[0], corrected[2]] == pytest.approx([0.02, 0.04])


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_tail_of_a_fair_coin(rows):
    first, second = zip(*rows, strict=True)
    table = np.zeros((2, 2))
    for a, b in rows:
        table[int(not a), int(not b)] += 1
    only_first, only_second, p = mcnemar(first, second)
    assert (only_first, only_second) == (table[0, 1], table[1, 0])
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    assert p == pytest.approx(min(1, 2 * tail))


@pytest.mark.parametrize(("right", "n"), [(9414, 10_000), (50, 50), (0, 7), (3, 8)])
def test_wilson_by_its_formula(right, n):
    share, z = right / n, 1.959963985
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert wilson(share, n) == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-9)


def test_a_paired_interval_covers_the_true_difference_as_often_as_it_says():
    rng, n = np.random.default_rng(0), 500
    true = (0.06, 0.03)  # shares of images that only the first, and only the second, gets right
    inside = 0
    for _ in range(2000):
        only_first, only_second, _ = rng.multinomial(n, (*true, 1 - sum(true)))
        difference, low, high = paired_interval(int(only_first), int(only_second), n)
        assert low <= difference <= high
        inside += low <= true[0] - true[1] <= high
    assert 0.94 <= inside / 2000 <= 0.965
    assert paired_interval(0, 0, 100)[1] < 0 < paired_interval(0, 0, 100)[2]
    assert paired_interval(5, 9, 100)[0] == pytest.approx(-paired_interval(9, 5, 100)[0])
