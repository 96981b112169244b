"""What every network offers beside its logits."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

__all__ = ["Network"]


class Network(nn.Module):
    """A network from normalised images to logits that can be looked into."""

    min_image_size: int = 32
    """Side in pixels of the smallest images that it takes; 32 for a network that takes no other size."""

    statistics_images: int = 1000
    """Training images from which it computes the layers that come from data."""

    def initialise_from(self, images: Tensor) -> None:
        """Computes the layers that come from data, if there are any, before the first step.

        Args:
            images: normalised training images, float (N, 3, 32, 32), all classes among them.
        """

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Normalised float images (B, 3, 32, 32) to the features (B, F) that the linear layer classifies."""

    @abstractmethod
    def layers(self) -> dict[str, nn.Module]:
        """The hidden layers from the pixels on: modules whose outputs, after the nonlinearity, can be looked at."""

    @abstractmethod
    def first_filters(self) -> Tensor:
        """Weights that look at the pixels, as images (N, 3, H, W)."""
