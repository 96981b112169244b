"""Layers, features and first filters of networks that have no methods for them."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from cifar_lightning.models import CNN, ImageClassifier, introspection


def plain() -> nn.Sequential:
    """A network without any method of its own."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def test_a_plain_network():
    net, images = plain().eval(), torch.randn(4, 3, 32, 32)
    assert introspection.layers(net) == {"0": net[1]}  # the convolution, after its activation
    assert torch.equal(introspection.features(net, images), net[:4](images))
    assert introspection.first_filters(net) is net[0].weight
    assert introspection.head(net) is net[4]
    introspection.initialise_from(net, images)  # nothing to compute


def test_a_network_of_torchvision():
    net, images = resnet18(num_classes=10).eval(), torch.randn(2, 3, 32, 32)
    layers = introspection.layers(net)
    assert list(layers) == ["conv1", *(f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1))]
    assert layers["conv1"] is net.relu  # after its normalisation and activation
    found = introspection.features(net, images)
    assert torch.equal(net.fc(found), net(images))
    assert introspection.first_filters(net).shape == (64, 3, 7, 7)


def test_wrappers_and_lists_count_as_what_they_hold():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(
                [nn.Linear(3072, 5), nn.ReLU(), nn.Linear(5, 10)]
            )  # no method, whatever its name

        def forward(self, images):
            x = images.flatten(1)
            for layer in self.layers:
                x = layer(x)
            return x

    net, images = Wrapper(), torch.randn(4, 3, 32, 32)
    assert introspection.layers(net) == {"layers.0": net.layers[1]}
    assert introspection.first_filters(net).shape == (5, 3, 32, 32)
    torch.testing.assert_close(net.layers[2](introspection.features(net, images)), net(images))


class Wide(nn.Module):
    """Takes no convolutions; its head has two inputs and is called anything."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(1536, 4), nn.Linear(1536, 5)
        self.anything = nn.Bilinear(4, 5, 10)

    def forward(self, images):
        left, right = images.flatten(1).chunk(2, 1)
        return self.anything(self.left(left).relu(), self.right(right).relu())


def test_a_head_of_several_inputs():
    net, images = Wide().eval(), torch.randn(4, 3, 32, 32)
    assert introspection.head(net) is net.anything
    assert list(introspection.layers(net)) == ["left", "right"]
    left, right = introspection.features(net, images).split([4, 5], 1)
    torch.testing.assert_close(net.anything(left, right), net(images))
    assert introspection.first_filters(net) is None


def test_a_network_without_a_linear_head():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(2, 3, 32, 32)
    assert introspection.head(net) is net[2]
    assert list(introspection.layers(net)) == ["0"]
    torch.testing.assert_close(introspection.features(net, images), net[:2](images).mean((2, 3)))


def test_a_network_whose_logits_come_from_no_module():
    class Prototypes(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(3072, 6)
            self.centers = nn.Parameter(torch.randn(10, 6))

        def forward(self, images):
            return -torch.cdist(self.embed(images.flatten(1)), self.centers)

    net, images = Prototypes().eval(), torch.randn(4, 3, 32, 32)
    assert introspection.head(net) is None
    assert introspection.layers(net) == {"embed": net.embed}
    torch.testing.assert_close(introspection.features(net, images), net.embed(images.flatten(1)))
    assert introspection.first_filters(net).shape == (6, 3, 32, 32)


def test_looking_at_a_network_changes_nothing():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(10))
    model = ImageClassifier(net)
    model.check_net([32])
    net[1].eval()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    model.check_net([32])
    introspection.layers(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert not net[1].training


class NotFinite(nn.Module):
    def forward(self, images):
        return torch.full((len(images), 10), torch.nan)


class Pair(nn.Module):
    def forward(self, images):
        return images.mean((2, 3)), images


@pytest.mark.parametrize(
    ("net", "sizes", "message"),
    [
        (resnet18(), (), r"to return finite logits \(2, 10\), got \(2, 1000\)\. Set its number of classes to 10"),
        (Pair(), (), r"got tuple\. Return the logits alone"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3, 10)), (), r"`model\.net` .* images \(2, 3, 32, 32\), got Runtime"),
        (CNN([8] * 5, 1), (32, 16), r"`data\.image_sizes` that the network takes, got 16 pixels: Runtime.*Kernel size"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 10).double()), (), "got RuntimeError"),
        (NotFinite(), (), "got values that are not finite"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(net, sizes, message):
    with pytest.raises(ValueError, match=message):
        ImageClassifier(net).check_net(sizes)


def test_a_network_that_answers_itself():
    net, images = CNN([8, 8], [1, 1]).eval(), torch.randn(2, 3, 32, 32)
    assert introspection.layers(net) == net.layers()
    assert torch.equal(introspection.features(net, images), net.features(images))
    assert torch.equal(introspection.first_filters(net), net.first_filters())
