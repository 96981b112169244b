"""Layers, head, features and first filters of any network.

A network is any `nn.Module` from normalised float images (B, 3, H, W) to logits (B, 10). What it does not describe
itself is found by a forward pass with hooks. It may describe itself by any of these, which are preferred:

    class Tiny(nn.Module):
        statistics_images = 1000  # training images that `initialise_from` gets

        def __init__(self, width: int = 16):
            super().__init__()
            self.conv = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(width, 10)

        def forward(self, images):  # the only method that is needed
            return self.head(self.features(images))

        def features(self, images):  # (B, F): what the last layer classifies
            return self.conv(images)

        def layers(self):  # the hidden layers from the pixels on, by name
            return {"conv": self.conv}

        def first_filters(self):  # (N, 3, height, width): trained weights that look at the pixels
            return self.conv[0].weight

        def fixed_filters(self):  # the same of a computed layer below these, where there is one
            return None

        def initialise_from(self, images):  # computes weights from normalised training images (N, 3, 32, 32)
            ...
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cifar_lightning.optim.groups import NORMS

__all__ = [
    "Call",
    "calls",
    "features",
    "first_filters",
    "fixed_filters",
    "head",
    "initialise_from",
    "layers",
    "undisturbed",
]


class Call(NamedTuple):
    """A call of a module without children in a forward pass.

    Attributes:
        name: Name of the module in the network.
        module: The module.
        channels: Size of dimension 1 of its output; 0 where the output is not a tensor of two dimensions or more.
    """

    name: str
    module: nn.Module
    channels: int


@contextlib.contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
    """Restore buffers, modes and the random state of a network after forward passes, which need no gradients."""
    modes = {module: module.training for module in net.modules()}
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers() if not nn.parameter.is_lazy(buffer)}
    devices = list({parameter.device for parameter in net.parameters() if parameter.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, buffer in net.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])


def calls(net: nn.Module) -> tuple[list[Call], int]:
    """Return the calls of modules without children in a forward pass of two images, and the number of classes."""
    found: list[Call] = []
    parameter = next(net.parameters(), torch.zeros(()))
    images = torch.linspace(-2, 2, 2 * 3 * 32 * 32, device=parameter.device, dtype=parameter.dtype).view(2, 3, 32, 32)

    def record(name: str, module: nn.Module, output: object) -> None:
        channels = output.shape[1] if isinstance(output, Tensor) and output.ndim > 1 else 0
        found.append(Call(name, module, channels))

    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: record(name, module, output))
        for name, module in net.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        with undisturbed(net):
            logits = net.eval().forward(images)  # past a compiled call, which would be compiled anew for the hooks
    finally:
        for hook in hooks:
            hook.remove()
    return found, logits.shape[1]


def head(net: nn.Module) -> nn.Module | None:
    """Return the module without children that turns features into logits; None where no such module does."""
    return _head(*calls(net))


def _head(found: list[Call], classes: int) -> nn.Module | None:
    weighted = [call for call in found if is_weighted(call.module)]
    return weighted[-1].module if weighted and weighted[-1].channels == classes else None


def is_weighted(module: nn.Module) -> bool:
    """Whether a module multiplies its input by weights, as convolutions and linear layers do."""
    own = module.parameters(recurse=False)
    return not isinstance(module, NORMS) and any(parameter.ndim > 1 for parameter in own)


def layers(net: nn.Module) -> dict[str, nn.Module]:
    """Return the hidden layers from the pixels on; their outputs are taken after the nonlinearity where it is known.

    Without a method `layers`, these are the blocks of the network: its children that have weights, and in place of a
    child that holds several such blocks in sequence, these. A convolution or a linear layer stands with the
    normalisation and the activation that follow it. The head is left out.
    """
    if inspect.ismethod(own := getattr(net, "layers", None)):
        return own()
    found, classes = calls(net)
    last = _head(found, classes)
    place: dict[nn.Module, int] = {}
    for i, call in enumerate(found):
        place.setdefault(call.module, i)
    parts = []
    for name, part in _parts(net, "", last):
        places = [place[module] for module in part.modules() if module in place]
        if places and part is not last and not isinstance(part, NORMS):
            parts.append((min(places), name, part))
    return {name: _with_activation(part, name, found) for _, name, part in sorted(parts, key=lambda part: part[0])}


def _parts(module: nn.Module, prefix: str, last: nn.Module | None) -> list[tuple[str, nn.Module]]:
    children = [(f"{prefix}{name}", child) for name, child in module.named_children() if has_parameters(child)]
    parts = []
    for name, child in children:
        inner = [grandchild for grandchild in child.children() if has_parameters(grandchild)]
        is_sequence = isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        is_several = sum(map(is_weighted, inner)) > 1 or any(True for part in inner for _ in part.children())
        holds_head = child is not last and any(part is last for part in child.modules())
        opened = inner and (len(children) == 1 or (is_sequence and is_several) or holds_head)
        parts += _parts(child, f"{name}.", last) if opened else [(name, child)]
    return parts


def _with_activation(part: nn.Module, name: str, found: list[Call]) -> nn.Module:
    """Return the normalisation or the activation that follows a single layer, or the part itself."""
    used = [call.module for call in found]
    if part not in used:
        return part
    parent = name.rpartition(".")[0]
    for call in found[used.index(part) + 1 :]:
        follows = isinstance(call.module, NORMS) or call.module.__module__ == "torch.nn.modules.activation"
        if not follows or used.count(call.module) > 1 or call.name.rpartition(".")[0] != parent:
            break
        part = call.module
    return part


def has_parameters(module: nn.Module) -> bool:
    """Whether a module or a module in it has parameters."""
    return next(module.parameters(), None) is not None


def features(net: nn.Module, images: Tensor) -> Tensor | None:
    """Return what the head classifies.

    Args:
        net: from images to logits.
        images: normalised float (B, 3, H, W).

    Returns:
        float (B, F), averaged over positions and joined where the head takes several inputs; without a head, the
        output of the last hidden layer; None for a network that has neither.
    """
    if inspect.ismethod(own := getattr(net, "features", None)):
        return own(images)
    kept: list[Tensor] = []

    def keep(tensors: object) -> None:
        kept[:] = [pooled(t) for t in (tensors if isinstance(tensors, tuple) else (tensors,)) if isinstance(t, Tensor)]

    if (last := head(net)) is not None:
        hook = last.register_forward_pre_hook(lambda _, inputs: keep(inputs))
    elif hidden := list(layers(net).values()):
        hook = hidden[-1].register_forward_hook(lambda _, inputs, output: keep(output))
    else:
        return None
    try:
        net.forward(images)  # past a compiled call, which would be compiled anew for the hook
    finally:
        hook.remove()
    return torch.cat(kept, 1) if kept else None


def pooled(output: Tensor) -> Tensor:
    """Return the mean over positions of (B, C, H, W) or (B, N, C) as (B, C); other shapes flattened."""
    return output.mean((2, 3)) if output.ndim == 4 else output.mean(1) if output.ndim == 3 else output.flatten(1)


def first_filters(net: nn.Module) -> Tensor | None:
    """Return the weights that look at the pixels as images.

    Returns:
        float (N, 3, H, W), or None where the first layer is neither a convolution of three channels nor a linear layer
        of all pixels of an image of 32x32.
    """
    if inspect.ismethod(own := getattr(net, "first_filters", None)):
        return own()
    first = next((call.module for call in calls(net)[0] if is_weighted(call.module)), None)
    if isinstance(first, nn.Conv2d) and first.weight.shape[1] == 3:
        return first.weight
    if isinstance(first, nn.Linear) and first.in_features == 3 * 32 * 32:
        return first.weight.view(-1, 3, 32, 32)
    return None


def fixed_filters(net: nn.Module) -> Tensor | None:
    """Return the filters of a computed layer below the first trained one, float (N, 3, H, W), or None without one."""
    return own() if inspect.ismethod(own := getattr(net, "fixed_filters", None)) else None


def initialise_from(net: nn.Module, images: Tensor) -> None:
    """Compute the layers that come from data, in a network that has such.

    Args:
        net: the network.
        images: normalised training images, float (N, 3, H, W), all classes among them.
    """
    if inspect.ismethod(own := getattr(net, "initialise_from", None)):
        own(images)
