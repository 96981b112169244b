"""What the layers of a network put out: feature maps, statistics and dead units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from cifar_lightning.analysis.style import image_array, new_figure

__all__ = ["LayerStatistics", "layer_outputs", "layer_statistics", "plot_feature_maps", "pooled"]


def layer_outputs(net: nn.Module, layers: Mapping[str, nn.Module], images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Runs the network once and keeps what some of its modules put out.

    Args:
        net: from images to logits.
        layers: modules of the network by the names they shall have.
        images: float (B, 3, H, W), what the network takes.

    Returns:
        The logits, and the outputs under the same names, (B, features) or (B, channels, H, W); a module that is not
        called, or puts out something else, is left out.
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
    """Feature maps (B, C, H, W) averaged over a grid as fine as `most` features allow; (B, features) as they are.

    Args:
        outputs: of a layer.
        most: features to return at most; maps of more channels than that are averaged over the whole image.

    Returns:
        float (B, features).
    """
    if outputs.ndim == 2:
        return outputs
    side = max(1, min(outputs.shape[2], int((most / outputs.shape[1]) ** 0.5)))
    return F.adaptive_avg_pool2d(outputs, side).flatten(1)


@dataclass(frozen=True)
class LayerStatistics:
    """How a layer behaves over some images.

    Attributes:
        mean: of all activations.
        std: standard deviation of all activations.
        dead: share of the units (channels, for feature maps) that put out the same for every image at every place.
    """

    mean: float
    std: float
    dead: float


def layer_statistics(outputs: Tensor) -> LayerStatistics:
    """Statistics of the outputs (B, units) or (B, channels, H, W) of a layer."""
    units = outputs.transpose(0, 1).flatten(1).double()
    spread = units.amax(1) - units.amin(1)
    return LayerStatistics(float(units.mean()), float(units.std(correction=0)), float((spread < 1e-6).double().mean()))


def plot_feature_maps(
    image: Tensor, outputs: Mapping[str, Tensor], title: str, channels: int = 10, names: Sequence[str] | None = None
) -> Figure:
    """Draws an image, and under it for each layer the feature maps that vary most over it.

    Every map is scaled on its own from its least value (dark) to its greatest (light). A layer without places, of an
    MLP, is drawn as a strip of all its units, the strongest first.

    Args:
        image: uint8 (3, H, W).
        outputs: of each layer for this image, (C, h, w) or (units,).
        title: which image of what.
        channels: maps to draw of each layer at most.
        names: what to call the layers; default: their names.
    """
    rows = len(outputs) + 1
    figure = new_figure(1.0 + channels, 1.12 * rows + 0.5, title)
    grid = figure.add_gridspec(rows, channels)
    axes = figure.add_subplot(grid[0, 0])
    axes.imshow(image_array(image[None])[0], interpolation="nearest")
    label(axes, "image")
    for row, (name, output) in enumerate(zip(names or outputs, outputs.values(), strict=True), start=1):
        output = output.detach().float().cpu()
        if output.ndim == 1:
            axes = figure.add_subplot(grid[row, :])
            axes.imshow(output.sort(descending=True).values[None].numpy(), aspect="auto", cmap="gray")
            label(axes, f"{name}\n{len(output)} units")
            continue
        strongest = output.flatten(1).std(1).argsort(descending=True)[:channels]
        for column, channel in enumerate(strongest.tolist()):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(output[channel].numpy(), cmap="gray", interpolation="nearest")
            size = f"{output.shape[1]}×{output.shape[2]}"
            label(axes, f"{name}\n{len(output)} of {size}" if column == 0 else "")
    return figure


def label(axes: Axes, text: str) -> None:
    """Writes left of a picture, and takes its frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_frame_on(False)
    axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)
