from __future__ import annotations

import math
import random

import pytest

from cifar_lightning.callbacks.pruning import Pruning, survives


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 12])
def test_of_all_one_in_factor_survives_whoever_is_asked(factor, n):
    values = random.Random(n).sample(range(1000), n)
    alive = [value for i, value in enumerate(values) if survives(value, values[:i] + values[i + 1 :], factor)]
    assert sorted(alive, reverse=True) == sorted(values, reverse=True)[: math.ceil(n / factor)]


def test_what_is_no_number_is_worst():
    assert not survives(math.nan, [], 3)
    assert survives(0.1, [math.nan, math.nan], 3)


def test_equals_survive_together():
    assert all(survives(0.5, [0.5, 0.5], factor) for factor in (2, 3))


@pytest.mark.parametrize(
    ("first", "factor", "rungs"), [(1, 3, [1, 3, 9, 27]), (2, 2, [2, 4, 8, 16, 32]), (5, 4, [5, 20])]
)
def test_rungs(first, factor, rungs):
    pruning = Pruning("rungs", "one", first_epochs=first, factor=factor)
    compared = []
    for epochs in range(1, 41):
        if pruning._is_due(epochs):
            compared.append(epochs)
            pruning.load_state_dict({"compared": epochs})
    assert compared == rungs


@pytest.mark.parametrize(
    "wrong", [{"first_epochs": 0}, {"factor": 1}, {"mode": "up"}, {"metric": "test/acc"}, {"metric": "train/acc"}]
)
def test_arguments_out_of_range(wrong):
    with pytest.raises(ValueError, match="Expected Pruning with"):
        Pruning("rungs", "one", **wrong)
