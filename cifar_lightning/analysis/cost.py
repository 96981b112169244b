"""What each layer of a network costs: weights, floating-point operations and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_lightning.analysis.activations import evaluating

__all__ = ["LayerCost", "depth", "flops_per_image", "layer_costs"]


def flops_per_image(net: nn.Module) -> int:
    """Return the floating-point operations of a forward pass of one image; a multiply-add counts as two."""
    image = next(net.parameters()).new_zeros(1, 3, 32, 32)
    with evaluating(net), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.forward(image)  # not the compiled call, which hides its operations
    return counter.get_total_flops()


def depth(net: nn.Module) -> int:
    """Return the number of linear and convolutional layers with trained weights."""
    layers = (module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d))
    return sum(layer.weight.requires_grad for layer in layers)


@dataclass(frozen=True)
class LayerCost:
    """Cost of a layer for one image, forward.

    Attributes:
        params: weights, trained or not.
        flops: floating-point operations of its convolutions and matrix products; a multiplication and an addition
            are two.
        seconds: wall-clock time, an image's share of a batch.
    """

    params: int
    flops: int
    seconds: float


def layer_costs(
    net: nn.Module, layers: Mapping[str, nn.Module], images: Tensor, rounds: int = 5
) -> dict[str, LayerCost]:
    """Measures each layer while the network runs, and what is left over as "rest".

    A layer that contains others given (a stage and its convolutions) counts only what they do not.

    Args:
        net: from images to logits, in eval mode.
        layers: modules of the network by name, in the order in which they end.
        images: float (B, 3, H, W), what the network takes.
        rounds: passes to take the median of, after one that does not count.
    """
    n = len(images)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ends = watched(net, layers, images, counter.get_total_flops)
    flops = differences(ends)
    times: dict[str, list[float]] = {name: [] for name in flops}
    for index in range(rounds + 1):
        with torch.no_grad():
            ends = watched(net, layers, images, lambda: clock(images.device))
        for name, value in differences(ends).items():
            if index:
                times[name].append(value)
    seen: set[int] = set()
    costs = {}
    for name, module in (*layers.items(), ("rest", net)):
        own = [parameter for parameter in module.parameters() if id(parameter) not in seen]
        seen |= {id(parameter) for parameter in own}
        params = sum(parameter.numel() for parameter in own)
        costs[name] = LayerCost(params, round(flops[name] / n), median(times[name]) / n)
    return costs


def watched(
    net: nn.Module, layers: Mapping[str, nn.Module], images: Tensor, gauge: Callable[[], float]
) -> dict[str, float]:
    """Runs the network and reads a gauge that rises: before ("start"), after each layer, and after all ("rest")."""
    readings = {"start": gauge()}

    def reader(name: str) -> Callable[[nn.Module, object, object], None]:
        def read(module: nn.Module, inputs: object, output: object) -> None:
            readings[name] = gauge()

        return read

    hooks = [module.register_forward_hook(reader(name)) for name, module in layers.items()]
    try:
        net(images)
    finally:
        for hook in hooks:
            hook.remove()
    return readings | {"rest": gauge()}


def differences(readings: dict[str, float]) -> dict[str, float]:
    """What came to the gauge since the reading before."""
    names = list(readings)
    return {name: readings[name] - readings[before] for before, name in pairwise(names)}


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
