"""Layers, features and first filters of networks that have no methods for them."""

import json

import pytest
import torch
from tiny import fit
from torch import nn
from torchvision.models import resnet18

from cifar_lightning.__main__ import main
from cifar_lightning.models import CNN, introspection

PLAIN = """
from torch import nn
from cifar_lightning.models import ImageClassifier

class Plain(ImageClassifier):
    def __init__(self, width: int = 8, **training):
        layers = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
        super().__init__(nn.Sequential(*layers), **training)

class Headless(ImageClassifier):
    def __init__(self, **training):
        layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(nn.Sequential(nn.Identity(), *layers), **training)
"""


def plain() -> nn.Sequential:
    """A network without any method of its own."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def test_a_plain_network():
    net, images = plain().eval(), torch.randn(4, 3, 32, 32)
    assert introspection.layers(net) == {"0": net[0]}
    assert torch.equal(introspection.features(net, images), net[:4](images))
    assert introspection.first_filters(net) is net[0].weight
    assert introspection.min_image_size(net) == 1
    introspection.initialise_from(net, images)  # nothing to compute


def test_a_network_of_torchvision():
    net, images = resnet18(num_classes=10).eval(), torch.randn(2, 3, 32, 32)
    assert list(introspection.layers(net)) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]
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
    assert introspection.layers(net) == {"layers.0": net.layers[0]}
    assert introspection.first_filters(net).shape == (5, 3, 32, 32)
    torch.testing.assert_close(net.layers[2](introspection.features(net, images)), net(images))


def test_what_a_network_does_not_have():
    net = nn.Sequential(nn.Conv2d(1, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert introspection.first_filters(net) is None
    assert introspection.features(net, torch.randn(2, 1, 8, 8)) is None


def test_a_network_that_answers_itself():
    net, images = CNN([8, 8], [1, 1]).eval(), torch.randn(2, 3, 32, 32)
    assert introspection.layers(net) == net.layers()
    assert torch.equal(introspection.features(net, images), net.features(images))
    assert torch.equal(introspection.first_filters(net), net.first_filters())


@pytest.mark.parametrize("name", ["Plain", "Headless"])
def test_plain_networks_train_and_report_with_everything_on(name, tmp_path, monkeypatch):
    (tmp_path / "plain_nets.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CIFAR_LIGHTNING_IMPORTS", "plain_nets")
    run = fit("--model", f"plain_nets.{name}", "--trainer.max_epochs", "1")
    for command in ("validate", "test", "predict", "report"):
        assert main([command, "--run", str(run)]) == 0
    result = json.loads((run / "result.json").read_text())
    assert sum(map(sum, result["test"]["confusion"])) == 200
    figures = {path.stem for path in (run / "report/figures").iterdir()}
    assert {"filters", "feature_maps", "probes"} <= figures
    assert ("features" in figures) == (name == "Plain")
