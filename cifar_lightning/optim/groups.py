"""Parameters by the part they play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ["NORMS", "parameter_groups"]

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Normalisations, whose scales are no weights."""
ADDED = (nn.Embedding, nn.EmbeddingBag)
MULTIPLIED = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd)


def parameter_groups(
    net: nn.Module, head: nn.Module | None = None, freeze_steps: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer: hidden weights, the weights of the head, and the rest.

    Weights are what inputs are multiplied with: the parameters of two or more dimensions of any module but a
    normalisation or an embedding. The rest (biases, scales of normalisations, embeddings of positions and of a class
    token) does not decay: pulling these to zero limits what the network can express and regularises nothing. The head
    is a group of its own, because some optimizers (Muon) treat it differently.

    Args:
        net: the network.
        head: the module in it that turns features into logits; None where no such module does.
        freeze_steps: names of parts of the network, and the optimizer steps after which each is no longer trained.

    Returns:
        The groups "weights", "head" and, with `weight_decay` 0, "biases"; one without parameters is left out. The
        parameters of a part that freezes are in groups of their own, of the same names, with the key "freeze_step".
    """
    of_head = set(head.parameters(recurse=False)) if head is not None else set()
    owners = {p: module for module in net.modules() for p in module.parameters(recurse=False)}
    freezing = {p: step for part, step in (freeze_steps or {}).items() for p in net.get_submodule(part).parameters()}
    groups: dict[tuple[int | None, str], list[nn.Parameter]] = {}
    for step in (None, *dict.fromkeys(freezing.values())):
        groups |= {(step, name): [] for name in ("weights", "head", "biases")}
    for parameter in net.parameters():
        if parameter.requires_grad:
            is_weight = is_weight_of(owners[parameter], parameter)
            name = "biases" if not is_weight else "head" if parameter in of_head else "weights"
            groups[freezing.get(parameter), name].append(parameter)
    return [
        {"name": name, "params": params}
        | ({"weight_decay": 0.0} if name == "biases" else {})
        | ({} if step is None else {"freeze_step": step})
        for (step, name), params in groups.items()
        if params
    ]


def is_weight_of(module: nn.Module, parameter: nn.Parameter) -> bool:
    """Return whether a module multiplies its inputs with a parameter of its own."""
    if parameter.ndim < 2 or isinstance(module, NORMS + ADDED):
        return False
    # Embeddings of positions (1, N, C) and of a class token (1, 1, C) are added.
    return parameter.shape[0] > 1 or isinstance(module, MULTIPLIED)
