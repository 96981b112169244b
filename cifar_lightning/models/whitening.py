"""A first layer that is computed from the images instead of trained."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["patch_covariance", "whitening_filters", "whitening_matrix"]


def whitening_filters(images: Tensor, kernel_size: int, eps: float = 5e-4) -> Tensor:
    """Filters whose responses to patches of the images are uncorrelated and of equal variance, and their negatives.

    Neighbouring pixels are nearly equal, so that a gradient moves along brightness and hardly along edges and colours.
    After whitening all directions count alike (Page 2019, "How to train your ResNet"; airbench, arXiv 2404.00498).

    Args:
        images: float (N, C, H, W), normalised.
        kernel_size: side of a patch in pixels.
        eps: added to the variances, so that noise in the finest patterns is not blown up.

    Returns:
        float (2 * C * kernel_size ** 2, C, kernel_size, kernel_size), by rising variance, then the negatives.
    """
    variances, directions = torch.linalg.eigh(patch_covariance(images, kernel_size))
    filters = directions.T / (variances + eps).sqrt()[:, None]
    filters = filters.reshape(-1, images.shape[1], kernel_size, kernel_size)
    return torch.cat([filters, -filters])


def patch_covariance(images: Tensor, kernel_size: int) -> Tensor:
    """Second moments of all patches of all images, float (C * kernel_size ** 2, C * kernel_size ** 2)."""
    patches = images.unfold(2, kernel_size, 1).unfold(3, kernel_size, 1)  # (N, C, rows, columns, kernel, kernel)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1] * kernel_size**2)
    return patches.T @ patches / len(patches)


def whitening_matrix(covariance: Tensor, components: int, eps: float = 0.1) -> Tensor:
    """PCA whitening: projects on the directions of greatest variance and makes them vary alike.

    (Krizhevsky 2009, appendix A; Coates, Ng and Lee 2011.)

    Args:
        covariance: float (D, D), of vectors of mean zero.
        components: directions to keep, at most D.
        eps: added to the variances before their root is taken; the larger, the less the fine detail is raised.

    Returns:
        float (D, components), by rising variance, scaled so that the projected vectors have a mean square of 1.
    """
    variances, directions = torch.linalg.eigh(covariance)
    variances, directions = variances[-components:], directions[:, -components:]
    whiten = directions * (variances + eps).rsqrt()
    return whiten / (variances / (variances + eps)).mean().sqrt()
