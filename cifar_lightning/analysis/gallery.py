"""Images with the predictions of a network."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from cifar_lightning.analysis.style import BLUE, ORANGE, image_array, new_figure

__all__ = ["plot_captioned", "plot_predictions"]


def plot_predictions(
    images: Tensor,
    labels: Tensor,
    logits: Tensor,
    classes: Sequence[str],
    title: str,
    columns: int = 8,
    count_wrong: bool = True,
) -> Figure:
    """Draw images under their predicted class and its probability; mistakes are framed and name the true class.

    Args:
        images: uint8 (B, 3, H, W).
        labels: int64 (B,).
        logits: float (B, C).
        classes: the C names.
        title: what the images are of.
        columns: images in a row.
        count_wrong: whether the title gives the number of mistakes.
    """
    probabilities = logits.detach().float().cpu().softmax(1)
    confidences, predictions = probabilities.max(1)
    labels = labels.cpu()
    rows = -(-len(labels) // columns)
    if count_wrong:
        title = f"{title}: {int((predictions != labels).sum())} of {len(labels)} wrong"
    figure = new_figure(1.35 * columns, 1.72 * rows + 0.7, title)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_frame_on(False)
    shown = zip(
        all_axes, image_array(images), labels.tolist(), predictions.tolist(), confidences.tolist(), strict=False
    )
    for axes, image, label, prediction, confidence in shown:
        right = label == prediction
        colour = BLUE if right else ORANGE
        axes.imshow(image, interpolation="nearest")
        axes.set_title(f"{classes[prediction]} {confidence:.0%}", fontsize=9, color=colour, pad=3)
        axes.set_xlabel("" if right else f"is {classes[label]}", fontsize=9, color=colour, labelpad=2)
        axes.set_frame_on(not right)
        for spine in axes.spines.values():
            spine.set_color(ORANGE)
            spine.set_linewidth(3)
    return figure


def plot_captioned(images: Tensor, names: Sequence[str], captions: Sequence[str], title: str) -> Figure:
    """Draw images with a line of text above and below each.

    Args:
        images: uint8 (B, 3, H, W).
        names: above the B images.
        captions: below them.
        title: what the images are of.
    """
    height, width = images.shape[2:]
    columns = 6 if width > height else 8
    side = 12 / columns
    rows = -(-len(names) // columns)
    figure = new_figure(12, (side * height / width + 0.45) * rows + 0.7, title)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.set_axis_off()
    for axes, picture, name, caption in zip(all_axes, image_array(images), names, captions, strict=False):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(name, fontsize=9, pad=3)
        axes.text(0.5, -0.06, caption, fontsize=8, ha="center", va="top", transform=axes.transAxes)
    return figure
