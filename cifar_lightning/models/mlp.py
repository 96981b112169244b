"""A multilayer perceptron on raw pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cifar_lightning.models.blocks import ACTIVATIONS, ActivationName, MLPNormName, initialise, norm_1d
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.models.whitening import whitening_matrix

__all__ = ["MLP", "MLPClassifier"]


class MLP(nn.Module):
    """Linear, normalisation, activation and dropout for each width, and a linear layer to the classes.

    Args:
        widths: Hidden units of each layer; an empty list makes a linear classifier.
        activation: "relu", "gelu", "silu", "leaky_relu" or "tanh".
        norm: "batch", "layer" or "none".
        dropout: Probability to drop a hidden unit, in [0, 1).
        whiten_components: Principal components of the pixels, whitened, that the first layer sees: a fixed matrix
            computed from the training images. 0 for the pixels themselves.

    Raises:
        ValueError: for arguments out of range; all problems in one message.
    """

    statistics_images = 10_000
    whitening: Tensor | None

    def __init__(
        self,
        widths: Sequence[int] = (2048, 1024, 512),
        activation: ActivationName = "gelu",
        norm: MLPNormName = "batch",
        dropout: float = 0.1,
        whiten_components: int = 0,
    ) -> None:
        super().__init__()
        fan_in = 3 * 32 * 32
        problems = []
        if any(width < 1 for width in widths):
            problems.append(f"Expected every one of `model.net.widths` to be at least 1 unit, got {widths}.")
        if not 0 <= dropout < 1:
            problems.append(f"Expected `model.net.dropout` in [0, 1), got {dropout}.")
        if not 0 <= whiten_components <= fan_in:
            problems.append(f"Expected `model.net.whiten_components` in [0, {fan_in}], got {whiten_components}.")
        if problems:
            raise ValueError(" ".join(problems))
        self.register_buffer(
            "whitening", torch.eye(fan_in)[:, -whiten_components:].clone() if whiten_components else None
        )
        fan_in = whiten_components or fan_in
        self.hidden = nn.Sequential()
        for width in widths:
            # A bias before a normalisation would be subtracted again.
            block = [nn.Linear(fan_in, width, bias=norm == "none"), norm_1d(norm, width), ACTIVATIONS[activation]()]
            if dropout:
                block.append(nn.Dropout(dropout))
            self.hidden.append(nn.Sequential(*block))
            fan_in = width
        self.head = nn.Linear(fan_in, 10)
        if norm == "none":
            initialise(self)

    def initialise_from(self, images: Tensor) -> None:
        """Computes the whitening of the pixels from the images (N, 3, 32, 32) and their mirror images."""
        if self.whitening is not None:
            pixels = images.flatten(1)
            covariance = (pixels.T @ pixels / len(pixels)).view(*images.shape[1:], *images.shape[1:])
            covariance = (covariance + covariance.flip(2, 5)) / 2  # mirrored images have it with the columns reversed
            self.whitening.copy_(whitening_matrix(covariance.reshape(pixels.shape[1], -1), self.whitening.shape[1]))

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, 32, 32) to the last hidden layer (B, widths[-1])."""
        pixels = images.flatten(1)
        return self.hidden(pixels if self.whitening is None else pixels @ self.whitening)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float images (B, 3, 32, 32) to logits (B, 10)."""
        return self.head(self.features(images))

    def layers(self) -> dict[str, nn.Module]:
        """Each hidden layer; their outputs are (B, width)."""
        return {f"hidden{i + 1}": block for i, block in enumerate(self.hidden)}

    def first_filters(self) -> Tensor:
        """Input weights of the first layer as images (units, 3, 32, 32), seen through the whitening."""
        weight = next(layer for layer in self.modules() if isinstance(layer, nn.Linear)).weight
        return (weight if self.whitening is None else weight @ self.whitening.T).view(-1, 3, 32, 32)

    def fixed_filters(self) -> Tensor | None:
        """Return the whitened principal components as images (whiten_components, 3, 32, 32), or None without them."""
        return None if self.whitening is None else self.whitening.T.view(-1, 3, 32, 32)


class MLPClassifier(ImageClassifier):
    """Trains a multilayer perceptron: every pixel is an input of its own, no locality and no shared weights."""

    def __init__(self, net: MLP | None = None, **kwargs: Any) -> None:
        super().__init__(MLP() if net is None else net, **kwargs)
