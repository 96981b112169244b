"""What every network offers beside its logits."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

__all__ = ["Network"]


class Network(nn.Module):
    """A network from normalised images to logits that can be looked into."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Normalised float images (B, 3, 32, 32) to the features (B, F) that the linear layer classifies."""

    @abstractmethod
    def first_filters(self) -> Tensor:
        """Weights that look at the pixels, as images (N, 3, H, W)."""
