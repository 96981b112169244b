"""A map of features in two dimensions."""

from __future__ import annotations

import torch
from sklearn.manifold import TSNE
from torch import Tensor

__all__ = ["embed"]


def embed(features: Tensor, seed: int = 0) -> Tensor:
    """Return a map of features by t-SNE (van der Maaten and Hinton 2008).

    Args:
        features: float (N, F).
        seed: of the optimisation, which starts from the principal components.

    Returns:
        float32 (N, 2).
    """
    if len(features) < 3:
        return torch.zeros(len(features), 2)
    tsne = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=seed, max_iter=500)
    return torch.from_numpy(tsne.fit_transform(features.double().numpy())).float()
