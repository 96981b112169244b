from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_lightning.analysis.cost import executed_flops_per_image, flops_per_image, layer_costs, time_steps
from cifar_lightning.models.cnn import CNN
from cifar_lightning.models.mlp import MLP
from cifar_lightning.models.resnet import ResNet

# Multiply-adds of CNN([8, 16], [2, 2], whiten_px=2) for images of 32 and of 20 pixels. Of an odd number of rows the
# pooling drops one, which is not computed: 30 of 31.
CONVOLUTIONS = {
    32: (24 * 3 * 4 * 31**2, 24 * 8 * 9 * 30**2, 8 * 8 * 9 * 15**2, 8 * 16 * 9 * 14**2, 16 * 16 * 9 * 7**2, 160),
    20: (24 * 3 * 4 * 19**2, 24 * 8 * 9 * 18**2, 8 * 8 * 9 * 9**2, 8 * 16 * 9 * 8**2, 16 * 16 * 9 * 4**2, 160),
}


@pytest.mark.parametrize("size", [32, 20])
def test_flops_of_a_forward_and_of_a_backward_pass_are_those_counted_by_hand(size):
    net = CNN([8, 16], [2, 2], whiten_px=2, whiten_bias=True)
    whitening, first, *others = CONVOLUTIONS[size]
    assert flops_per_image(net, size) == 2 * sum(CONVOLUTIONS[size])
    weights = {p for p in net.parameters() if p is not net.whiten[0].weight}
    # Each layer once forwards, and once for the gradient of its weights and once for that of its inputs.
    assert executed_flops_per_image(net, size, weights) == 2 * (whitening + 3 * (first + sum(others)))
    # Without the bias of the whitening nothing needs the gradient of the inputs of the first convolution.
    without = weights - {net.whiten[0].bias}
    assert executed_flops_per_image(net, size, without) == 2 * (whitening + 2 * first + 3 * sum(others))
    # With the first stage frozen, backward ends at the weights of the second.
    of_second = weights - {*net.whiten.parameters(), *net.stages[0].parameters()}
    below, third, *above = others
    expected = whitening + first + below + 2 * third + 3 * sum(above)
    assert executed_flops_per_image(net, size, of_second) == 2 * expected
    assert [p.requires_grad for p in net.whiten.parameters()] == [False, True]
    assert all(p.grad is None for p in net.parameters())


def test_costs_of_an_mlp_are_those_of_its_matrices():
    net = MLP([64, 32]).eval()
    costs = layer_costs(net, net.layers(), torch.randn(5, 3, 32, 32))
    assert list(costs) == ["hidden1", "hidden2", "rest"]
    assert [cost.flops for cost in costs.values()] == [2 * 3072 * 64, 2 * 64 * 32, 2 * 32 * 10]
    assert [cost.params for cost in costs.values()] == [3072 * 64 + 128, 64 * 32 + 64, 32 * 10 + 10]
    assert all(cost.seconds > 0 for cost in costs.values())


def test_costs_of_a_cnn_are_those_of_its_convolutions():
    net = CNN([8, 16], [2, 2], whiten_px=2).eval()
    costs = layer_costs(net, net.layers(), torch.randn(2, 3, 32, 32), rounds=1)
    expected = {
        "whitening": 3 * 24 * 4 * 31 * 31,
        "stage1.conv1": 24 * 8 * 9 * 30 * 30,
        "stage1.conv2": 8 * 8 * 9 * 15 * 15,
        "stage2.conv1": 8 * 16 * 9 * 14 * 14,
        "stage2.conv2": 16 * 16 * 9 * 7 * 7,
        "rest": 16 * 10,
    }
    assert {name: cost.flops for name, cost in costs.items()} == {name: 2 * n for name, n in expected.items()}
    # A convolution without bias, and scale and shift of the normalisation behind it.
    assert costs["stage1.conv2"].params == 8 * 8 * 9 + 2 * 8
    assert costs["rest"].params == 160


@pytest.mark.parametrize("make", [lambda: ResNet(20), lambda: CNN([4, 6], [3, 2], residual=True)])
def test_layers_add_up_to_the_network(make):
    net = make().eval()
    images = torch.randn(3, 3, 32, 32)
    costs = layer_costs(net, net.layers(), images, rounds=1)
    assert sum(cost.params for cost in costs.values()) == sum(p.numel() for p in net.parameters())
    with FlopCounterMode(display=False) as counter:
        net(images)
    assert sum(cost.flops for cost in costs.values()) == pytest.approx(counter.get_total_flops() / 3)
    assert not any(module._forward_hooks for module in net.modules())


def test_training_steps_are_timed_and_taken():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    before = net[1].weight.clone()
    model = torch.nn.Sequential(Float(), net)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    times = time_steps(model, optimizer, 4, torch.device("cpu"), contextlib.nullcontext, steps=3, uncounted=2)
    assert len(times) == 3
    assert all(time.passes > 0 and time.update > 0 for time in times)
    assert not torch.equal(net[1].weight, before)


class Float(torch.nn.Module):
    def forward(self, images):
        assert images.dtype == torch.uint8
        return images.float() / 255


def test_an_activation_counts_the_layer_before_it_and_a_layer_called_twice_ends_with_the_last_call():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(7, 7)
            self.stem, self.twice = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.relu = nn.ReLU()
            self.scores = nn.Bilinear(4, 4, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = self.twice(self.relu(self.stem(images)))
            features = self.twice(maps.relu()).mean((2, 3))
            return self.scores(features, features)

    net = Net().eval()
    layers = {"twice": net.twice, "stem": net.relu, "unused": net.unused}
    costs = layer_costs(net, layers, torch.randn(2, 3, 32, 32), rounds=1)
    assert {name: cost.params for name, cost in costs.items()} == {
        "stem": 3 * 4 * 9 + 4,
        "twice": 4 * 4 * 9 + 4,
        "rest": 4 * 4 * 10 + 10 + 7 * 7 + 7,
    }
    assert costs["stem"].flops == 2 * 3 * 4 * 9 * 30 * 30
    assert costs["twice"].flops == 2 * 4 * 4 * 9 * (28 * 28 + 26 * 26)
