"""Residual networks are the published ones."""

from __future__ import annotations

import itertools

import pytest
import torch
import torchvision
from torch import nn

from cifar_lightning.models import ResNet
from cifar_lightning.models.resnet import BasicBlock


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(18, 11_173_962), (20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_resnets_have_the_known_number_of_parameters(depth, expected):
    net = ResNet(depth)
    assert sum(p.numel() for p in net.parameters()) == expected
    layers = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([name for name in layers if "projection" not in name]) == depth


def test_resnet18_is_the_network_of_torchvision_with_the_small_stem():
    other = torchvision.models.resnet18(num_classes=10)
    other.conv1, other.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    net = ResNet(18)
    # Same order of the layers, other names.
    states = net.state_dict(), other.state_dict()
    assert [v.shape for v in states[0].values()] == [v.shape for v in states[1].values()]
    other.load_state_dict(dict(zip(states[1], states[0].values(), strict=True)))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(images), other(images), rtol=1e-4, atol=1e-4)


def test_option_a_takes_every_second_pixel_and_adds_zeros():
    x = torch.randn(2, 16, 8, 8)
    y = BasicBlock(16, 32, 2, projection=False).shortcut(x)
    assert y.shape == (2, 32, 4, 4)
    for row, col in itertools.product(range(4), range(4)):
        assert torch.equal(y[:, 8:24, row, col], x[:, :, 2 * row, 2 * col])
    assert y[:, :8].abs().max() == y[:, 24:].abs().max() == 0
    assert BasicBlock(16, 16, 1, projection=False).shortcut(x) is x
    assert BasicBlock(16, 16, 1, projection=True).shortcut(x) is x
