from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cifar_lightning.models import CNN, MLP, ResNet
from cifar_lightning.optim.groups import parameter_groups
from cifar_lightning.optim.schedule import lr_factor


@pytest.mark.parametrize("net", [MLP([8]), MLP([8], norm="none"), CNN([8, 8], [1, 2], norm="group"), ResNet(20)])
def test_weights_decay_and_nothing_else(net):
    weights, biases = parameter_groups(net)
    expected = {id(m.weight) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {id(p) for p in weights["params"]} == expected
    assert {id(p) for p in biases["params"]} == {id(p) for p in net.parameters()} - expected
    assert len(weights["params"]) + len(biases["params"]) == len(list(net.parameters()))
    assert (weights["name"], biases["name"]) == ("weights", "biases")
    assert biases["weight_decay"] == 0
    assert "weight_decay" not in weights  # what the optimizer was given


def test_an_optimizer_takes_the_groups():
    net = nn.Linear(3, 2)
    before = net.weight.detach().clone(), net.bias.detach().clone()
    optimizer = torch.optim.SGD(parameter_groups(net), lr=0.5, weight_decay=0.1)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(net.weight, before[0] * (1 - 0.5 * 0.1))
    assert torch.equal(net.bias, before[1])


def test_frozen_parameters_and_empty_groups_are_left_out():
    net = nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    (group,) = parameter_groups(net)
    assert group["name"] == "weights"
    assert group["params"] == [net.weight]


def test_linear_and_cosine_fall_from_one_to_the_end():
    # Fractions of the way from peak to end, by hand: quarters of a line, and of half a cosine.
    cosine = [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]
    for shape, remaining in (("linear", [1, 0.75, 0.5, 0.25, 0]), ("cosine", cosine)):
        for final in (0.0, 0.2):
            found = [lr_factor(step, 100, 0, shape, final) for step in (0, 25, 50, 75, 100)]
            assert found == pytest.approx([final + (1 - final) * r for r in remaining])


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
def test_warm_up_rises_in_a_line_and_meets_the_peak(shape):
    factors = [lr_factor(step, 20, 4, shape, 0.1) for step in range(21)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[4] == 1
    falling = factors[4:]
    assert falling == sorted(falling, reverse=True)
    assert factors[20] == pytest.approx(1.0 if shape == "constant" else 0.1)
    assert factors[19] > factors[20] or shape == "constant"


def test_it_stays_at_the_end():
    assert lr_factor(25, 20, 4, "linear", 0.1) == pytest.approx(0.1)
    assert lr_factor(25, 20, 4, "cosine", 0.1) == pytest.approx(0.1)


def test_a_warm_up_as_long_as_the_training_never_falls():
    assert [lr_factor(step, 4, 4, "cosine", 0.0) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_constant_does_not_ask_for_the_length():
    assert [lr_factor(step, 0, 2, "constant", 0.0) for step in (0, 1, 2, 1000)] == [0.5, 1, 1, 1]
