"""The figures of an evaluated network, by name. TensorBoard and the report draw the same ones.

To add a figure, write a function that takes an `Evaluated` and add it to `FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cifar_lightning import CLASSES
from cifar_lightning.analysis.activations import layer_outputs, plot_feature_maps
from cifar_lightning.analysis.calibration import Reliability, plot_reliability, reliability
from cifar_lightning.analysis.confusion import plot_confusion
from cifar_lightning.analysis.filters import plot_filters
from cifar_lightning.analysis.gallery import plot_predictions
from cifar_lightning.analysis.mistakes import confident_mistakes
from cifar_lightning.data.split import evenly_spaced
from cifar_lightning.models import introspection

__all__ = ["FIGURES", "Evaluated", "filter_kinds"]

FEATURE_MAP_IMAGES = 2


@dataclass(frozen=True)
class Evaluated:
    """A network and its predictions for the images of a split.

    Attributes:
        net: from normalised images to logits, in eval mode and on its device.
        normalize: from uint8 images on that device to what the network takes.
        images: uint8 (N, 3, H, W), on the CPU like all tensors here.
        labels: int64 (N,).
        logits: float (N, 10).
        run: name of the run, for titles.
        where: number and split of the images, such as "5,000 val images", for titles.
        gallery_images: largest number of images in a gallery.
        diagrams: reliability diagrams by name; default: that of the predictions.
    """

    net: nn.Module
    normalize: Callable[[Tensor], Tensor]
    images: Tensor
    labels: Tensor
    logits: Tensor
    run: str
    where: str
    gallery_images: int = 40
    diagrams: Mapping[str, Reliability] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Run and images, for titles."""
        return f"{self.run}, {self.where}"

    @cached_property
    def probabilities(self) -> Tensor:
        """float32 (N, 10)."""
        return self.logits.float().softmax(1)

    @cached_property
    def predictions(self) -> Tensor:
        """int64 (N,)."""
        return self.probabilities.argmax(1)

    @cached_property
    def confusion(self) -> Tensor:
        """int64 (10, 10), true classes in rows and predicted classes in columns."""
        n = len(CLASSES)
        return torch.bincount(self.labels * n + self.predictions, minlength=n * n).view(n, n)

    def inputs(self, rows: Tensor) -> Tensor:
        """Return some of the images as the network takes them, on its device."""
        device = next(self.net.parameters()).device
        return self.normalize(self.images[rows].to(device))

    def gallery(self, rows: Tensor, title: str, count_wrong: bool = False) -> Figure:
        """Draw some of the images with their predictions.

        Args:
            rows: int64 (n,), which images.
            title: what they are; the run is added.
            count_wrong: whether the title says how many are wrong.
        """
        images, labels, logits = self.images[rows], self.labels[rows], self.logits[rows]
        return plot_predictions(images, labels, logits, CLASSES, f"{title}, {self.title}", count_wrong=count_wrong)


def confusion(shown: Evaluated) -> Figure:
    """Draw the confusion matrix."""
    return plot_confusion(shown.confusion, CLASSES, f"Confusion matrix, {shown.title}")


def reliability_diagram(shown: Evaluated) -> Figure:
    """Draw accuracy against confidence."""
    diagrams = shown.diagrams or {"predictions": reliability(shown.probabilities, shown.labels)}
    return plot_reliability(diagrams, f"Reliability, {shown.title}")


def filters(shown: Evaluated) -> Figure | str:
    """Draw the filters of the first trained layer, and those of a computed layer below it."""
    kinds = filter_kinds(shown.net)
    return plot_filters(kinds, f"Filters, {shown.run}") if kinds else "the network has no filters that look at colours"


def filter_kinds(net: nn.Module) -> dict[str, Tensor]:
    """Return filters (N, 3, H, W) by what they are: those of the first trained layer, and computed ones below it."""
    trained, fixed = introspection.first_filters(net), introspection.fixed_filters(net)
    if trained is None:
        return {}
    if fixed is None:
        return {"first layer": trained.detach()}
    name = "first trained layer, projected to pixels through the whitening (linear parts only)"
    return {name: trained.detach(), "whitening": fixed.detach()}


def feature_maps(shown: Evaluated) -> Figure | str:
    """Draw the outputs of each layer for two of the images."""
    rows = evenly_spaced(len(shown.labels), FEATURE_MAP_IMAGES)
    _, outputs = layer_outputs(shown.net, introspection.layers(shown.net), shown.inputs(rows))
    if not outputs:
        return "the network has no layers whose outputs can be drawn"
    images = {f"image {row},\n{CLASSES[shown.labels[row]]}": shown.images[row] for row in rows.tolist()}
    return plot_feature_maps(images, outputs, f"Feature maps, {shown.title}")


def predictions(shown: Evaluated) -> Figure:
    """Draw images, the same ones each time, with their predictions."""
    return shown.gallery(evenly_spaced(len(shown.labels), shown.gallery_images), "Predictions", count_wrong=True)


def mistakes(shown: Evaluated) -> Figure | str:
    """Draw the wrong predictions of highest confidence."""
    rows = confident_mistakes(shown.probabilities, shown.labels, shown.gallery_images)
    return shown.gallery(rows, "Most confident mistakes") if len(rows) else "no image is misclassified"


FIGURES: dict[str, Callable[[Evaluated], Figure | str]] = {
    "confusion": confusion,
    "reliability": reliability_diagram,
    "filters": filters,
    "feature_maps": feature_maps,
    "predictions": predictions,
    "mistakes": mistakes,
}
"""Each function returns a figure, or the reason why there is none."""
