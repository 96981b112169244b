from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from cifar_lightning.models import CNN, MLP, ResNet, introspection
from cifar_lightning.optim.groups import parameter_groups
from cifar_lightning.optim.muon import Muon, orthogonalize
from cifar_lightning.optim.schedule import lr_factor, make_scheduler


@pytest.mark.parametrize("net", [MLP([8]), MLP([8], norm="none"), CNN([8, 8], [1, 2], norm="group"), ResNet(20)])
def test_weights_decay_and_nothing_else(net):
    *weights, biases = parameter_groups(net, net.head)
    expected = {id(m.weight) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {id(p) for group in weights for p in group["params"]} == expected
    assert [id(p) for group in weights if group["name"] == "head" for p in group["params"]] == [id(net.head.weight)]
    assert {id(p) for p in biases["params"]} == {id(p) for p in net.parameters()} - expected
    assert sum(len(group["params"]) for group in (*weights, biases)) == len(list(net.parameters()))
    assert biases["name"] == "biases"
    assert biases["weight_decay"] == 0
    assert all("weight_decay" not in group for group in weights)  # what the optimizer was given


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


def test_parts_that_freeze_have_groups_of_their_own():
    net = CNN([8, 8], [1, 1])
    groups = parameter_groups(net, net.head, {"stages.0": 7, "head": 3})
    assert [(group["name"], group.get("freeze_step")) for group in groups] == [
        ("weights", None),
        ("biases", None),
        ("weights", 7),
        ("biases", 7),
        ("head", 3),
    ]
    assert {id(p) for group in groups[2:4] for p in group["params"]} == {id(p) for p in net.stages[0].parameters()}
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_a_cooldown_keeps_the_end_and_a_part_that_freezes_falls_to_zero_before():
    net = CNN([8, 8], [1, 1])
    optimizer = Muon(parameter_groups(net, net.head, {"stages.0": 4}))
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = make_scheduler(optimizer, "linear", 10, 0, 2, 0.2, {})
    factors = []
    for _ in range(11):
        factors.append([group["lr"] / peak for group, peak in zip(optimizer.param_groups, peaks, strict=True)])
        optimizer.step()  # there are no gradients
        schedule.step()
    falling, frozen = [max(0.2, 1 - 0.1 * step) for step in range(11)], [max(0, 1 - step / 4) for step in range(11)]
    for group, found in zip(optimizer.param_groups, zip(*factors, strict=True), strict=True):
        assert list(found) == pytest.approx(frozen if "freeze_step" in group else falling), group["name"]


def test_a_constant_rate_is_zero_once_a_part_is_frozen():
    net = CNN([8, 8], [1, 1])
    optimizer = torch.optim.SGD(parameter_groups(net, net.head, {"stages.0": 2}), lr=0.5)
    schedule, rates = make_scheduler(optimizer, "constant", 0, 0, 0, 0.0, {}), []
    for _ in range(4):
        rates.append({group.get("freeze_step"): group["lr"] for group in optimizer.param_groups})
        optimizer.step()  # there are no gradients
        schedule.step()
    assert rates == [{None: 0.5, 2: 0.5}] * 2 + [{None: 0.5, 2: 0.0}] * 2


def test_a_warm_up_as_long_as_the_training_never_falls():
    assert [lr_factor(step, 4, 4, "cosine", 0.0) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_constant_does_not_ask_for_the_length():
    assert [lr_factor(step, 0, 2, "constant", 0.0) for step in (0, 1, 2, 1000)] == [0.5, 1, 1, 1]


# Muon.


def newton_schulz_on_singular_values(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """The same polynomial, applied to the singular values of one matrix."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / (values.square().sum().sqrt() + 1e-7)
    a, b, c = 3.4445, -4.7750, 2.0315  # as published
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    return left * values @ right


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (12, 12), (1, 5)])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_orthogonalize_maps_the_singular_values(shape, steps):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(matrices, steps)
    for matrix, result in zip(matrices, found, strict=True):
        torch.testing.assert_close(
            result.double(), newton_schulz_on_singular_values(matrix, steps), rtol=1e-3, atol=1e-4
        )
    if steps == 5:
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.4
        assert values.max() < 1.3


def test_orthogonalize_leaves_zeros_alone():
    assert torch.equal(orthogonalize(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


@pytest.mark.parametrize("shape", [(64, 200), (200, 64)])
def test_orthogonalize_forgives_bfloat16(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    rough, exact = orthogonalize(matrices.bfloat16(), 3).float(), orthogonalize(matrices, 3)
    assert (rough - exact).norm() < 0.05 * exact.norm()
    moved = []
    for dtype in ("float32", "bfloat16"):
        weight = nn.Parameter(torch.ones(shape))
        weight.grad = matrices[0].clone()
        Muon([weight], newton_schulz_dtype=dtype).step()
        assert weight.dtype == torch.float32
        moved.append(weight.detach())
    assert not torch.equal(*moved)
    torch.testing.assert_close(*moved, rtol=0, atol=0.01)


def test_muon_takes_the_steps_written_down():
    """Three steps of every kind of parameter, against the formulas one parameter at a time."""
    torch.manual_seed(0)
    net = CNN([4, 4], [2, 1], norm="batch")
    optimizer = Muon(parameter_groups(net, net.head), lr=0.1, momentum=0.6, head_lr=0.5, bias_lr=2.0, sgd_momentum=0.8)
    expected = {name: p.detach().clone() for name, p in net.named_parameters()}
    buffers = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for _ in range(3):
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        for name, p in net.named_parameters():
            value, buffer = expected[name], buffers[name]
            if p.ndim == 4:
                buffer.mul_(0.6).add_(p.grad)
                update = newton_schulz_on_singular_values((p.grad + 0.6 * buffer).flatten(1), 3).float().view(p.shape)
                expected[name] = value * (len(p) ** 0.5 / value.norm()) - 0.1 * update
            else:
                lr = 0.5 if name == "head.weight" else 2.0
                gradient = p.grad + 0.002 / lr * value
                buffer.mul_(0.8).add_(gradient)
                expected[name] = value - lr * (gradient + 0.8 * buffer)
        optimizer.step()
        for name, p in net.named_parameters():
            torch.testing.assert_close(p.detach(), expected[name], rtol=1e-3, atol=1e-4)


def test_muon_steps_on_a_closure_and_skips_what_has_no_gradient():
    net = nn.Linear(3, 2)
    before = net.bias.detach().clone()
    optimizer = Muon([net.weight, net.bias])

    def closure() -> torch.Tensor:
        loss = net.weight.square().sum()
        loss.backward()
        return loss

    loss = net.weight.detach().square().sum()
    torch.testing.assert_close(optimizer.step(closure).detach(), loss)
    assert not torch.equal(net.weight.detach().square().sum(), loss)
    assert torch.equal(net.bias, before)


def test_muon_names_all_that_is_wrong():
    with pytest.raises(
        ValueError, match=r"`lr` at least 0, got -1; `momentum` in \[0, 1\), got 1.5; `newton_schulz_st"
    ):
        Muon([torch.zeros(2, 2)], lr=-1, momentum=1.5, newton_schulz_steps=0)
    with pytest.raises(ValueError, match="`newton_schulz_dtype` float32 or bfloat16, got float16"):
        Muon([torch.zeros(2, 2)], newton_schulz_dtype="float16")


def test_groups_follow_what_a_parameter_is():
    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 8, 8)
            self.token, self.places = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.zeros(1, 17, 8))
            self.mix = nn.Parameter(torch.randn(8, 8))
            self.norm = nn.LayerNorm([17, 8])
            self.table = nn.Embedding(4, 8)
            self.classes = nn.Linear(8, 10)

        def forward(self, images):
            x = self.patches(images).flatten(2).mT
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
            return self.classes((self.norm(x) @ self.mix)[:, 0] + self.table.weight[0])

    net = Transformer()
    groups = {group["name"]: group["params"] for group in parameter_groups(net, introspection.head(net))}
    names = {parameter: name for name, parameter in net.named_parameters()}
    assert {names[p] for p in groups["weights"]} == {"patches.weight", "mix"}
    assert [names[p] for p in groups["head"]] == ["classes.weight"]
    assert len(groups["biases"]) == len(names) - 3


def test_the_head_of_a_network_of_torchvision_is_found_whatever_its_name():
    net = resnet18(num_classes=10)
    groups = {group["name"]: group["params"] for group in parameter_groups(net, introspection.head(net))}
    assert groups["head"] == [net.fc.weight]
    assert all(p.ndim == 4 for p in groups["weights"])
    assert sum(map(len, groups.values())) == len(list(net.parameters()))


def test_muon_leaves_weights_alone_whose_rate_is_zero():
    """It would scale them to their norm otherwise."""
    net = CNN([8, 8], [1, 1])
    optimizer = Muon(parameter_groups(net, net.head))
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer.step()
    assert all(torch.equal(value, old) for value, old in zip(net.parameters(), before, strict=True))
