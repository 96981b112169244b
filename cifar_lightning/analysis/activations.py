"""The outputs of the layers of a network: feature maps, statistics and dead units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from cifar_lightning.analysis.style import image_array, new_figure

__all__ = ["LayerStatistics", "evaluating", "layer_outputs", "layer_statistics", "plot_feature_maps", "pooled"]

TILE_PX = 60
"""Pixels of a feature map in a figure."""


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put a network in eval mode for a while, and then each of its modules in the mode that it was in."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def layer_outputs(net: nn.Module, layers: Mapping[str, nn.Module], images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Run the network once and keep the outputs of some of its modules.

    Args:
        net: from images to logits.
        layers: modules of the network by name.
        images: float (B, 3, H, W), the input of the network.

    Returns:
        The logits, and the outputs by the same names, (B, features) or (B, channels, H, W). Modules that are not called
        or return anything else are left out.
    """
    outputs: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, object, object], None]:
        def keep(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim in (2, 4):
                outputs[name] = output

        return keep

    hooks = [module.register_forward_hook(keeper(name)) for name, module in layers.items()]
    try:
        logits = net.forward(images)  # past a compiled call, which would be compiled anew for the hooks
    finally:
        for hook in hooks:
            hook.remove()
    return logits, {name: outputs[name] for name in layers if name in outputs}


def pooled(outputs: Tensor, most: int = 1024) -> Tensor:
    """Average feature maps (B, C, H, W) over a square grid; return outputs (B, features) unchanged.

    Args:
        outputs: of a layer.
        most: largest number of features. The grid is as fine as this allows, and at least the whole image.

    Returns:
        float (B, features).
    """
    if outputs.ndim == 2:
        return outputs
    side = max(1, min(outputs.shape[2], int((most / outputs.shape[1]) ** 0.5)))
    return F.adaptive_avg_pool2d(outputs, side).flatten(1)


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of the outputs of a layer over some images.

    Attributes:
        mean: of all activations.
        std: standard deviation of all activations.
        dead: share of units (or channels of feature maps) whose output is the same for all images and positions.
    """

    mean: float
    std: float
    dead: float


def layer_statistics(outputs: Tensor) -> LayerStatistics:
    """Return the statistics of the outputs (B, units) or (B, channels, H, W) of a layer."""
    units = outputs.transpose(0, 1).flatten(1).double()
    ranges = units.amax(1) - units.amin(1)
    return LayerStatistics(float(units.mean()), float(units.std(correction=0)), float((ranges < 1e-6).double().mean()))


def plot_feature_maps(
    images: Mapping[str, Tensor], outputs: Mapping[str, Tensor], title: str, maps: int = 10
) -> Figure:
    """Draw each image, and below it the feature maps of each layer that vary most over it.

    Every map is scaled from its minimum (dark) to its maximum (light). Outputs of one value per unit,
    as those of fully connected layers, are drawn as a strip of all units, in falling order.

    Args:
        images: B images by name, uint8 (3, H, W).
        outputs: of each layer for these images, (B, C, h, w) or (B, units).
        title: what the images are of.
        maps: largest number of maps per layer.
    """
    rows = len(images) * (len(outputs) + 1)
    figure = new_figure(1.2 + maps, 1.05 * rows + 0.5, title)
    all_axes = iter(figure.subplots(rows, 1, squeeze=False)[:, 0])
    for index, (image_name, image) in enumerate(images.items()):
        axes = next(all_axes)
        axes.imshow(image_array(image[None])[0], extent=(0, 1, 0, 1), interpolation="nearest")
        label(axes, image_name, maps)
        for name, batch in outputs.items():
            axes, output = next(all_axes), batch[index].detach().float().cpu()
            if output.ndim == 1 or output[0].numel() == 1:
                output = output.flatten()
                units = output.sort(descending=True).values[None].numpy()
                axes.imshow(units, extent=(0, maps, 0, 1), cmap="gray", interpolation="nearest")
                label(axes, f"{name}\n{len(output)} units", maps)
                continue
            strongest = output.flatten(1).std(1, correction=0).argsort(descending=True)[:maps]
            tiles = side_by_side(output[strongest])
            axes.imshow(tiles.numpy(), extent=(0, len(strongest), 0, 1), cmap="gray", vmin=0, vmax=1)
            label(axes, f"{name}\n{len(output)} of {output.shape[1]}×{output.shape[2]}", maps)
    return figure


def side_by_side(maps: Tensor) -> Tensor:
    """Return feature maps (C, h, w) in one row, each scaled to [0, 1], with NaN between them."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    zoom = max(1, TILE_PX // max(maps.shape[1:]))
    scaled = (maps - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    tiles = scaled.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    return torch.cat(list(F.pad(tiles, (0, max(1, tiles.shape[2] // 12)), value=torch.nan)), dim=1)


def label(axes: Axes, text: str, width: int) -> None:
    """Write a label to the left of a row of pictures `width` times as wide as high, and remove its frame."""
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(0, 1), aspect="auto", frame_on=False)
    axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)
