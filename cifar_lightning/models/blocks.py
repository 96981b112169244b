"""The layers that the networks choose by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

__all__ = ["ACTIVATIONS", "ActivationName", "MLPNormName", "NormName", "initialise", "norm_1d", "norm_2d"]

ActivationName = Literal["relu", "gelu", "silu", "leaky_relu", "tanh"]
NormName = Literal["batch", "group", "none"]
MLPNormName = Literal["batch", "layer", "none"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
}


def norm_1d(name: MLPNormName, features: int) -> nn.Module:
    """Normalisation of (B, features)."""
    makers: dict[str, Callable[[int], nn.Module]] = {
        "batch": nn.BatchNorm1d,
        "layer": nn.LayerNorm,
        "none": lambda _: nn.Identity(),
    }
    return makers[name](features)


def norm_2d(name: NormName, channels: int, momentum: float = 0.1, scale: bool = True) -> nn.Module:
    """Normalisation of (B, channels, H, W); group normalisation takes 8 channels a group where they divide evenly.

    Args:
        name: "batch", "group" or "none".
        channels: channels to normalise.
        momentum: weight of the newest batch in the statistics that a batch normalisation evaluates with.
        scale: train a factor for each channel of a batch normalisation, or leave it at 1.
    """
    if name == "batch":
        layer = nn.BatchNorm2d(channels, momentum=momentum)
        layer.weight.requires_grad_(scale)
        return layer
    if name == "group":
        return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)
    return nn.Identity()


def initialise(net: nn.Module) -> None:
    """He initialisation of convolutions and linear layers (He et al. 2015, arXiv 1502.01852); zero biases.

    It keeps the scale of activations through many layers. Where they are normalised, the scale of the weights only
    sets the effective learning rate, and PyTorch's smaller default trains faster at the same rate.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
