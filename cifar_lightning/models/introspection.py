"""What can be learned about any network: its layers, its features and its first filters.

A network that has the methods of `Network` answers itself; for any other `nn.Module` its modules answer.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

__all__ = ["features", "first_filters", "fixed_filters", "initialise_from", "layers", "min_image_size"]


def layers(net: nn.Module) -> dict[str, nn.Module]:
    """Return the hidden layers in the order in which they were defined.

    Of a network without a method `layers`, these are the children that have parameters, without the last linear
    layer. A child that only holds others (a list, or the one child of a wrapper) counts as its own children.
    """
    if inspect.ismethod(own := getattr(net, "layers", None)):
        return own()
    head = last_linear(net)
    return {name: module for name, module in _parts(net, "") if module is not head}


def _parts(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    children = [(f"{prefix}{name}", child) for name, child in module.named_children() if has_parameters(child)]
    parts = []
    for name, child in children:
        holds_others = isinstance(child, nn.ModuleList | nn.ModuleDict) or len(children) == 1
        inner = _parts(child, f"{name}.") if holds_others else []
        parts += inner or [(name, child)]
    return parts


def has_parameters(module: nn.Module) -> bool:
    """Whether a module or a module in it has parameters."""
    return next(module.parameters(), None) is not None


def last_linear(net: nn.Module) -> nn.Linear | None:
    """Return the linear layer that was defined last, which is taken for the head, or None."""
    found = [module for module in net.modules() if isinstance(module, nn.Linear)]
    return found[-1] if found else None


def features(net: nn.Module, images: Tensor) -> Tensor | None:
    """Return what the linear layer to the classes takes.

    Args:
        net: from images to logits.
        images: normalised float (B, 3, H, W).

    Returns:
        float (B, F), or None for a network that does not end in a linear layer.
    """
    if inspect.ismethod(own := getattr(net, "features", None)):
        return own(images)
    head, kept = last_linear(net), []
    if head is None:
        return None
    hook = head.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    try:
        net.forward(images)  # past a compiled call, which would be compiled anew for the hook
    finally:
        hook.remove()
    return kept[-1].flatten(1) if kept else None


def first_filters(net: nn.Module) -> Tensor | None:
    """Return the weights that look at the pixels as images.

    Returns:
        float (N, 3, H, W), or None where the first layer is neither a convolution of three channels nor a linear layer
        of all pixels of an image of 32x32.
    """
    if inspect.ismethod(own := getattr(net, "first_filters", None)):
        return own()
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)), None)
    if isinstance(first, nn.Conv2d) and first.weight.shape[1] == 3:
        return first.weight
    if isinstance(first, nn.Linear) and first.in_features == 3 * 32 * 32:
        return first.weight.view(-1, 3, 32, 32)
    return None


def fixed_filters(net: nn.Module) -> Tensor | None:
    """Return the filters of a computed layer below the first trained one, float (N, 3, H, W), or None without one."""
    return own() if inspect.ismethod(own := getattr(net, "fixed_filters", None)) else None


def min_image_size(net: nn.Module) -> int:
    """Return the side in pixels of the smallest images that a network takes, as far as it is known."""
    size: Any = getattr(net, "min_image_size", 1)
    return size if isinstance(size, int) else 1


def initialise_from(net: nn.Module, images: Tensor) -> None:
    """Compute the layers that come from data, in a network that has such.

    Args:
        net: the network.
        images: normalised training images, float (N, 3, H, W), all classes among them.
    """
    if inspect.ismethod(own := getattr(net, "initialise_from", None)):
        own(images)
