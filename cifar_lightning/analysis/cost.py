"""The cost of a network and of its layers: weights, floating-point operations and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_lightning.analysis.activations import evaluating

__all__ = [
    "LayerCost",
    "StepTime",
    "depth",
    "executed_flops_per_image",
    "flops_per_image",
    "layer_costs",
    "time_steps",
]


def flops_per_image(net: nn.Module, size: int = 32) -> int:
    """Return the floating-point operations of a forward pass of one image; a multiply-add counts as two.

    A training step is counted as three times as many: backward multiplies each layer's gradient with its weights and
    with its inputs.

    Args:
        net: from images to logits.
        size: side of the image in pixels.
    """
    image = next(net.parameters()).new_zeros(1, 3, size, size)
    with evaluating(net), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.forward(image)  # not the compiled call, which hides its operations
    return counter.get_total_flops()


def executed_flops_per_image(net: nn.Module, size: int, trained: Collection[nn.Parameter]) -> int:
    """Return the floating-point operations of a forward and a backward pass that are computed for one image.

    Below the first parameter that is trained there is no backward pass, and the others need no gradient of their own.

    Args:
        net: from images to logits.
        size: side of the image in pixels.
        trained: parameters that are trained.
    """
    image = next(net.parameters()).new_zeros(1, 3, size, size)
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in net.parameters()]
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(parameter in trained).grad = None
        with evaluating(net), torch.enable_grad(), FlopCounterMode(display=False) as counter:
            net.forward(image).sum().backward()
    finally:
        for parameter, needs_gradient, gradient in before:
            parameter.requires_grad_(needs_gradient).grad = gradient
    return counter.get_total_flops()


def depth(net: nn.Module) -> int:
    """Return the number of linear and convolutional layers with trained weights."""
    layers = (module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d))
    return sum(layer.weight.requires_grad for layer in layers)


@dataclass(frozen=True)
class LayerCost:
    """Cost of a layer in a forward pass, per image.

    Attributes:
        params: weights, trained or not.
        flops: floating-point operations of its convolutions and matrix products; a multiply-add counts
            as two.
        seconds: wall-clock time of a batch, divided by its images.
    """

    params: int
    flops: int
    seconds: float


def layer_costs(
    net: nn.Module, layers: Mapping[str, nn.Module], images: Tensor, rounds: int = 5
) -> dict[str, LayerCost]:
    """Measure the network from the end of one layer to the end of the next, and what follows the last as "rest".

    So a layer that contains others (a stage and its convolutions) excludes their cost, and an activation
    includes the convolution before it. A layer that is called several times ends with the last call. Parameters count
    once.

    Args:
        net: from images to logits, in eval mode.
        layers: modules of the network by name. Those that are not called are left out.
        images: float (B, 3, H, W), the input of the network.
        rounds: passes to take the median time of, after one to warm up.

    Returns:
        Costs by name, in the order in which the layers end.
    """
    n = len(images)
    params = differences(watched_parameters(net, layers, images[:1]))
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
    return {name: LayerCost(round(params[name]), round(flops[name] / n), median(times[name]) / n) for name in flops}


def watched_parameters(net: nn.Module, layers: Mapping[str, nn.Module], images: Tensor) -> dict[str, float]:
    """Return the numbers of parameters of the modules that have been called, read as in `watched`."""
    called: dict[int, int] = {}

    def count(module: nn.Module, inputs: object, output: object) -> None:
        called.update((id(parameter), parameter.numel()) for parameter in module.parameters())

    hooks = [module.register_forward_hook(count) for module in net.modules()]
    try:
        with torch.no_grad():
            readings = watched(net, layers, images, lambda: sum(called.values()))
    finally:
        for hook in hooks:
            hook.remove()
    return readings | {"rest": sum(parameter.numel() for parameter in net.parameters())}


def watched(
    net: nn.Module, layers: Mapping[str, nn.Module], images: Tensor, gauge: Callable[[], float]
) -> dict[str, float]:
    """Run the network and read a rising gauge: before ("start"), after each layer, and at the end ("rest")."""
    readings = {"start": gauge()}

    def reader(name: str) -> Callable[[nn.Module, object, object], None]:
        def read(module: nn.Module, inputs: object, output: object) -> None:
            readings.pop(name, None)  # the last call counts, and stands last
            readings[name] = gauge()

        return read

    hooks = [module.register_forward_hook(reader(name)) for name, module in layers.items()]
    try:
        net.forward(images)  # not the compiled call, which would be compiled anew for the hooks
    finally:
        for hook in hooks:
            hook.remove()
    return readings | {"rest": gauge()}


def differences(readings: dict[str, float]) -> dict[str, float]:
    """Return the increase of each reading since the one before."""
    names = list(readings)
    return {name: readings[name] - readings[before] for before, name in pairwise(names)}


def clock(device: torch.device) -> float:
    """Return the time in seconds, after all queued work of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class StepTime(NamedTuple):
    """Seconds of one training step.

    Attributes:
        passes: forward and backward.
        update: of the optimizer.
    """

    passes: float
    update: float


def time_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[object]],
    steps: int,
    uncounted: int = 1,
) -> list[StepTime]:
    """Time training steps of a classifier of 32x32 images on one random batch, outside of any trainer.

    Args:
        model: returns logits of uint8 images of shape (n, 3, 32, 32); on the device.
        optimizer: of its parameters.
        batch_size: images of a step.
        device: to train on.
        precision: returns the context of a forward pass, such as autocast.
        steps: the number of steps that count.
        uncounted: steps before those, in which memory is allocated and kernels are chosen.
    """
    images = torch.randint(0, 256, (batch_size, 3, 32, 32), dtype=torch.uint8, device=device)
    labels = torch.randint(0, 10, (batch_size,), device=device)
    times = []
    for _ in range(uncounted + steps):
        started = clock(device)
        with precision():
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        between = clock(device)
        optimizer.step()
        optimizer.zero_grad()
        times.append(StepTime(between - started, clock(device) - between))
    return times[uncounted:]
