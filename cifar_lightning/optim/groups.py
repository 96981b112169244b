"""Which parameters decay."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["decay_groups"]


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: the weights, which decay, and the rest, which do not.

    Weights are the parameters of two or more dimensions. Biases and the scales of normalisations have one; pulling
    them to zero limits what the network can express and regularises nothing.

    Returns:
        The groups "weights" and, with `weight_decay` 0, "biases"; a group without parameters is left out.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"name": "weights", "params": [p for p in trained if p.ndim >= 2]},
        {"name": "biases", "params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
