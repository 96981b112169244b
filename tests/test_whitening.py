"""Filters and projections that are computed from images before the training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from cifar_lightning.models import CNN, MLP
from cifar_lightning.models.whitening import patch_covariance, whitening_filters, whitening_matrix


def test_whitened_patches_are_uncorrelated():
    generator = torch.Generator().manual_seed(0)
    images = F.avg_pool2d(torch.randn(60, 3, 36, 36, generator=generator), 5, 1)  # neighbours are alike
    filters = whitening_filters(images, 2, eps=0.0)
    assert filters.shape == (24, 3, 2, 2)
    assert torch.equal(filters[:12], -filters[12:])
    responses = F.conv2d(images, filters[:12]).permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(responses @ responses.T / responses.shape[1], torch.eye(12), atol=2e-3, rtol=0)


def test_the_covariance_of_patches_equals_a_loop():
    images = torch.randn(3, 2, 5, 4, dtype=torch.double)
    total, n = torch.zeros(8, 8, dtype=torch.double), 0
    for image in images:
        for row in range(4):
            for col in range(3):
                patch = image[:, row : row + 2, col : col + 2].flatten()
                total += torch.outer(patch, patch)
                n += 1
    torch.testing.assert_close(patch_covariance(images, 2), total / n)


def covariance(vectors):
    """Second moments of (N, D)."""
    return vectors.T @ vectors / len(vectors)


def test_principal_components_are_whitened():
    vectors = torch.randn(4000, 6, dtype=torch.double) @ torch.randn(6, 6, dtype=torch.double)
    white = vectors @ whitening_matrix(covariance(vectors), 6, eps=0.0)
    torch.testing.assert_close(white.T @ white / 4000, torch.eye(6, dtype=torch.double))
    # The same by scikit-learn, up to signs; the mean is not subtracted here, so it is put to zero first.
    centred = vectors - vectors.mean(0)
    two = (centred @ whitening_matrix(covariance(centred), 2, eps=0.0)).flip(1)
    expected = torch.from_numpy(PCA(2, whiten=True).fit_transform(centred.numpy()))
    torch.testing.assert_close(two.abs(), expected.abs(), rtol=1e-3, atol=1e-6)  # it divides by n - 1
    softened = vectors @ whitening_matrix(covariance(vectors), 4, eps=1.0)
    assert softened.shape == (4000, 4)
    assert softened.square().mean() == pytest.approx(1)


def test_the_whitening_layer_is_computed_and_not_trained():
    net, images = CNN([8], [1], whiten_px=2), torch.randn(20, 3, 32, 32)
    net.initialise_from(images)
    assert torch.equal(net.fixed_filters(), whitening_filters(images, 2))
    assert not net.whiten[0].weight.requires_grad
    plain = CNN([8], [1])
    before = plain.first_filters().clone()
    plain.initialise_from(images)
    assert torch.equal(plain.first_filters(), before)


def test_an_mlp_whitens_its_pixels():
    net = MLP([4], whiten_components=30).eval()
    images = torch.randn(50, 3, 32, 32)
    plain = net.features(images)
    net.initialise_from(images)
    expected = whitening_matrix(covariance(torch.cat([images, images.flip(3)]).flatten(1)), 30)
    matrix = net.whitening
    signs = (matrix * expected).sum(0).sign()  # an eigenvector is found up to its sign
    torch.testing.assert_close(matrix, expected * signs, rtol=1e-4, atol=2e-5)
    assert not torch.allclose(net.features(images), plain)
    weight = net.hidden[0][0].weight
    assert weight.shape == (4, 30)
    torch.testing.assert_close(net.first_filters().flatten(1), weight @ matrix.T, rtol=1e-4, atol=1e-6)
    assert "whitening" in net.state_dict()


def test_the_bias_of_the_whitening_starts_at_random_values():
    net = CNN([8], whiten_px=2, whiten_bias=True)
    net.initialise_from(torch.randn(50, 3, 32, 32))
    bias = net.get_submodule("whiten.0").bias.detach()
    assert len(bias.unique()) == 24
    assert bias.abs().max() <= 12**-0.5  # PyTorch's default for 12 inputs
