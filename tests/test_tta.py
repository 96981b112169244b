from __future__ import annotations

import numpy as np
import pytest
import torch

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


def shifted(image: np.ndarray, by: int) -> np.ndarray:
    """The image (C, H, W) moved down and right, reflected at the border."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    out = np.empty_like(image)
    for row in range(height):
        for col in range(width):
            out[:, row, col] = padded[:, row + 1 - by, col + 1 - by]
    return out


VIEWS = {
    "none": [(1.0, 0, False)],
    "flip": [(1 / 2, 0, False), (1 / 2, 0, True)],
    "flip_translate": [
        (1 / 4, 0, False),
        (1 / 4, 0, True),
        (1 / 8, 1, False),
        (1 / 8, 1, True),
        (1 / 8, -1, False),
        (1 / 8, -1, True),
    ],
}


@pytest.mark.parametrize("tta", VIEWS)
def test_logits_are_the_weighted_mean_over_the_views(net, tta):
    images = torch.randn(4, 3, 8, 6)
    found = tta_logits(net, images, tta)
    assert net.views == 4 * len(VIEWS[tta])
    expected = torch.zeros(4, 10)
    for i, image in enumerate(images.numpy()):
        for weight, by, mirror in VIEWS[tta]:
            view = shifted(image, by)
            view = view[:, :, ::-1] if mirror else view
            expected[i] += weight * net(torch.from_numpy(view.copy())[None])[0]
    torch.testing.assert_close(found, expected)


def test_none_is_the_net_alone(net):
    images = torch.randn(4, 3, 8, 6)
    assert torch.equal(tta_logits(net, images, "none"), net(images))


def test_mirrored_views_forget_left_and_right(net):
    images = torch.randn(4, 3, 8, 6)
    torch.testing.assert_close(tta_logits(net, images, "flip"), tta_logits(net, images.flip(3), "flip"))
    assert not torch.allclose(net(images), net(images.flip(3)))
