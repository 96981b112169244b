"""What is taken out of a network, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from torch import nn

from cifar_lightning.analysis.activations import layer_outputs, layer_statistics, plot_feature_maps, pooled
from cifar_lightning.analysis.attribution import grad_cam, saliency
from cifar_lightning.analysis.probes import plot_probes, probe_accuracy
from cifar_lightning.models.cnn import CNN
from cifar_lightning.models.mlp import MLP
from cifar_lightning.models.resnet import ResNet

NETWORKS = {
    "mlp": (lambda: MLP([20, 12], dropout=0.1), ["hidden1", "hidden2"]),
    "cnn": (lambda: CNN([4, 6], [1, 2]), ["stage1.conv1", "stage2.conv1", "stage2.conv2"]),
    "whitened": (lambda: CNN([4], [3], whiten_px=2), ["whitening", "stage1.conv1", "stage1.conv2", "stage1.conv3"]),
    "residual": (lambda: CNN([4, 6], [2, 2], residual=True), [f"stage{i}.conv{j}" for i in (1, 2) for j in (1, 2)]),
    "resnet": (lambda: ResNet(20), ["stem", *(f"stage{i}.block{j}" for i in (1, 2, 3) for j in (1, 2, 3))]),
}


@pytest.fixture(params=NETWORKS)
def case(request) -> tuple[nn.Module, list[str]]:
    make, names = NETWORKS[request.param]
    return make().eval(), names


def test_layers_come_in_order_and_feed_each_other(case):
    net, names = case
    images = torch.randn(3, 3, 32, 32)
    layers = net.layers()
    assert list(layers) == names
    with torch.no_grad():
        logits, outputs = layer_outputs(net, layers, images)
        torch.testing.assert_close(logits, net(images))
        last = outputs[names[-1]]
        features = net.features(images)
    assert list(outputs) == names
    assert all(len(output) == 3 and output.ndim in (2, 4) for output in outputs.values())
    # The last layer is all that the features are made of.
    expected = last if last.ndim == 2 else (last.amax((2, 3)) if isinstance(net, CNN) else last.mean((2, 3)))
    torch.testing.assert_close(features, expected)
    assert not any(module._forward_hooks for module in net.modules())


def test_hooks_go_when_the_network_fails():
    net = MLP([4])
    with pytest.raises(RuntimeError):
        layer_outputs(net, net.layers(), torch.randn(2, 3, 8, 8))
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(("shape", "side"), [((2, 64, 15, 15), 4), ((2, 24, 31, 31), 6), ((2, 2000, 3, 3), 1)])
def test_maps_are_averaged_over_a_grid(shape, side):
    maps = torch.randn(shape)
    found = pooled(maps).view(2, shape[1], side, side)
    for i in range(side):
        for j in range(side):
            rows = slice(i * shape[2] // side, -(-(i + 1) * shape[2] // side))
            columns = slice(j * shape[3] // side, -(-(j + 1) * shape[3] // side))
            torch.testing.assert_close(found[:, :, i, j], maps[:, :, rows, columns].mean((2, 3)))


def test_vectors_stay_as_they_are():
    vectors = torch.randn(2, 4000)
    assert pooled(vectors) is vectors


def test_statistics_equal_numpy():
    maps = torch.randn(5, 4, 3, 3)
    maps[:, 2] = 0.7
    found = layer_statistics(maps)
    assert found.mean == pytest.approx(maps.numpy().mean(), abs=1e-6)
    assert found.std == pytest.approx(maps.numpy().std(), abs=1e-6)
    assert found.dead == 0.25
    units = torch.randn(6, 10)
    units[:, :3] = 0
    assert layer_statistics(units).dead == pytest.approx(0.3)


def test_probes_equal_scikit_learn():
    centres = torch.randn(10, 30)
    labels = torch.arange(600) % 10
    features = centres[labels] + 2 * torch.randn(600, 30)
    features[:, 4] = 3.0  # says nothing
    train, test = (features[:400], labels[:400]), (features[400:], labels[400:])
    mean, std = train[0].double().mean(0), train[0].double().std(0, correction=0)
    std[4] = 1
    x, y = ((part.double() - mean).div(std).numpy() for part in (train[0], test[0]))
    expected = RidgeClassifier(alpha=0.01 * 400).fit(x, train[1]).score(y, test[1])
    assert probe_accuracy(train, test) == pytest.approx(expected)
    assert 0.4 < expected < 1


def test_a_probe_with_nothing_to_see_takes_the_commonest_class():
    labels = torch.tensor([3, 3, 3, 1])
    assert probe_accuracy((torch.zeros(4, 5), labels), (torch.randn(4, 5), labels)) == 0.75


def test_saliency_equals_finite_differences():
    net = CNN([4], [1], activation="tanh", norm="none", pooling="average").double().eval()
    images, targets = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.tensor([3, 7])
    found = saliency(net, images, targets)
    assert found.shape == (2, 4, 4)
    step = 1e-6
    for image in range(2):
        for row in range(4):
            for column in range(4):
                slopes = []
                for channel in range(3):
                    moved = [images.clone(), images.clone()]
                    moved[0][image, channel, row, column] -= step
                    moved[1][image, channel, row, column] += step
                    low, high = (net(x)[image, targets[image]].item() for x in moved)
                    slopes.append(abs(high - low) / (2 * step))
                assert found[image, row, column].item() == pytest.approx(max(slopes), rel=1e-4, abs=1e-9)


def test_grad_cam_equals_its_definition():
    net = CNN([4, 6], [2, 2], whiten_px=2).eval()
    images, targets = torch.randn(3, 3, 32, 32), torch.tensor([0, 5, 9])
    layer = net.layers()["stage2.conv2"]
    found = grad_cam(net, layer, images, targets)
    for i, target in enumerate(targets.tolist()):
        kept = []
        hook = layer.register_forward_hook(lambda module, inputs, output, kept=kept: kept.append(output))
        logit = net(images[i : i + 1])[0, target]
        hook.remove()
        (gradient,) = torch.autograd.grad(logit, kept[0])
        cam = torch.zeros(kept[0].shape[-2:])
        for channel in range(6):
            cam += gradient[0, channel].mean() * kept[0][0, channel].detach()
        cam = nn.functional.interpolate(cam.relu()[None, None], size=(32, 32), mode="bilinear")[0, 0]
        expected = cam / cam.max() if cam.max() > 0 else cam
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-5)
    assert found.max() == 1


def test_attributions_leave_the_network_alone():
    net = CNN([4], [2]).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        saliency(net, images, torch.tensor([1, 2]))
        grad_cam(net, net.layers()["stage1.conv2"], images, torch.tensor([1, 2]))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not images.requires_grad


def test_feature_maps_are_drawn_image_by_image_and_layer_by_layer():
    images = {f"image {i}": torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for i in range(2)}
    outputs = {"conv1": torch.randn(2, 12, 15, 15), "hidden1": torch.randn(2, 40), "last": torch.randn(2, 3, 2, 2)}
    figure = plot_feature_maps(images, outputs, "Feature maps, cnn/version_0", maps=4)
    names = ["conv1\n12 of 15×15", "hidden1\n40 units", "last\n3 of 2×2"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["image 0", *names, "image 1", *names]
    for index in range(2):
        pictures = [axes.images[0].get_array() for axes in figure.axes[4 * index : 4 * index + 4]]
        np.testing.assert_array_equal(pictures[0], images[f"image {index}"].permute(1, 2, 0))
        maps = outputs["conv1"][index].numpy()
        order = np.argsort(-maps.reshape(12, -1).std(1))[:4]
        zoom = 60 // 15
        for place, channel in enumerate(order):
            start = place * (15 * zoom + 5)
            tile = pictures[1][:, start : start + 15 * zoom]
            scaled = (maps[channel] - maps[channel].min()) / (maps[channel].max() - maps[channel].min())
            np.testing.assert_allclose(tile[::zoom, ::zoom], scaled, rtol=1e-6)
            np.testing.assert_array_equal(tile, np.kron(tile[::zoom, ::zoom], np.ones((zoom, zoom))))
            assert np.ma.getmaskarray(np.ma.masked_invalid(pictures[1][:, start + 60 : start + 65])).all()
        np.testing.assert_array_equal(pictures[2][0], outputs["hidden1"][index].sort(descending=True).values)
        assert pictures[3].shape == (60, 3 * 65)
    figure.canvas.draw()


def test_probes_are_drawn_with_the_network_beside():
    figure = plot_probes({"pixels": 0.4, "hidden1": 0.55}, 0.62, "Linear probes, mlp/version_0, 5,000 val images")
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [40, 55])
    assert [text.get_text() for text in axes.texts] == ["40.0", "55.0", "the network: 62.0"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["pixels", "hidden1"]
    figure.canvas.draw()
