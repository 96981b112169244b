"""Features in the plane."""

from __future__ import annotations

import torch
from sklearn.manifold import TSNE
from torch import Tensor

__all__ = ["embed"]


def embed(features: Tensor, seed: int = 0) -> Tensor:
    """A map of features that keeps near points near: t-SNE (van der Maaten and Hinton 2008), by scikit-learn.

    Args:
        features: float (N, F).
        seed: of the optimisation; the start is that of the principal components.

    Returns:
        float32 (N, 2).
    """
    if len(features) < 3:
        return torch.zeros(len(features), 2)
    tsne = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=seed, max_iter=500)
    return torch.from_numpy(tsne.fit_transform(features.double().numpy())).float()
