from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from tiny import MLP, fit

from cifar_lightning.__main__ import main
from cifar_lightning.models.tta import tta_logits


@pytest.fixture
def net():
    """A nonlinear net without any symmetry, which counts its calls."""
    weight = torch.randn(3 * 8 * 6, 10)

    def call(images: torch.Tensor) -> torch.Tensor:
        call.views += len(images)
        return (images.flatten(1) @ weight).tanh()

    call.views = 0
    return call


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The image (C, H, W) moved, reflected at the border."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    out = np.empty_like(image)
    for row in range(height):
        for col in range(width):
            out[:, row, col] = padded[:, row + 2 - down, col + 2 - right]
    return out


PLACES = {
    "none": [(1, 0, 0)],
    "flip": [(1, 0, 0)],
    "flip_translate": [(1 / 2, 0, 0), (1 / 4, 1, 1), (1 / 4, -1, -1)],
    "flip_grid": [
        (1 / 16, -2, -2),
        (1 / 8, -2, 0),
        (1 / 16, -2, 2),
        (1 / 8, 0, -2),
        (1 / 4, 0, 0),
        (1 / 8, 0, 2),
        (1 / 16, 2, -2),
        (1 / 8, 2, 0),
        (1 / 16, 2, 2),
    ],
}


@pytest.mark.parametrize("tta", PLACES)
def test_logits_are_the_weighted_mean_over_the_views(net, tta):
    images = torch.randn(4, 3, 8, 6)
    found = tta_logits(net, images, tta)
    mirrors = [False] if tta == "none" else [False, True]
    assert net.views == 4 * len(PLACES[tta]) * len(mirrors)
    expected = torch.zeros(4, 10)
    for i, image in enumerate(images.numpy()):
        for weight, down, right in PLACES[tta]:
            for mirror in mirrors:
                view = shifted(image, down, right)[:, :, :: -1 if mirror else 1]
                expected[i] += weight / len(mirrors) * net(torch.from_numpy(view.copy())[None])[0]
    torch.testing.assert_close(found, expected)


def test_validations_of_a_training_take_each_image_as_it_is():
    run = fit(*MLP, "--model.tta=flip_grid")
    in_training = float(list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))[-1]["val/loss"])
    losses = {}
    for tta in ("none", "flip_grid"):
        assert main(["validate", "--run", str(run), "--ckpt_path=last", "--model.tta", tta]) == 0
        losses[tta] = json.loads((run / "result.json").read_text())["validate"]["metrics"]["val/loss"]
    assert losses["none"] == pytest.approx(in_training, rel=1e-5)
    assert losses["flip_grid"] != pytest.approx(in_training, rel=1e-3)


def test_none_is_the_net_alone(net):
    images = torch.randn(4, 3, 8, 6)
    assert torch.equal(tta_logits(net, images, "none"), net(images))


def test_mirrored_views_forget_left_and_right(net):
    images = torch.randn(4, 3, 8, 6)
    torch.testing.assert_close(tta_logits(net, images, "flip"), tta_logits(net, images.flip(3), "flip"))
    assert not torch.allclose(net(images), net(images.flip(3)))
