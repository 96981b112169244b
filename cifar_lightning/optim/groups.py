"""Parameters by the part they play."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["parameter_groups"]


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: hidden weights, the weights of the head, and the rest, which do not decay.

    Weights are the parameters of two or more dimensions. Biases and the scales of normalisations have one; pulling
    them to zero limits what the network can express and regularises nothing. The head, the linear layer to the
    classes under the name `head`, is a group of its own, because some optimizers (Muon) treat it unlike the rest.

    Returns:
        The groups "weights", "head" and, with `weight_decay` 0, "biases"; one without parameters is left out.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    weights = [(f".{name}".endswith(".head.weight"), p) for name, p in trained if p.ndim >= 2]
    groups: list[dict[str, Any]] = [
        {"name": "weights", "params": [p for is_head, p in weights if not is_head]},
        {"name": "head", "params": [p for is_head, p in weights if is_head]},
        {"name": "biases", "params": [p for _, p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
