"""What trained networks know about the images of a data root: features, and probabilities of images they never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lightning.analysis.activations import layer_outputs, pooled
from cifar_lightning.data.augment import resize
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.split import ImageSet
from cifar_lightning.models import introspection
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.precision import has_bfloat16
from cifar_lightning.runs import Run
from cifar_lightning.trained import load_trained

__all__ = ["Network", "load_networks", "out_of_sample"]

BATCH_SIZE = 500
SMALLEST_MAP_PX = 4
"""Features are those of the deepest layer with maps of at least this side: deeper ones forget what is where."""
COARSE_PX = 20
"""Features are those of images scaled down to this side and up again: compression changes the finest detail."""


@dataclass(frozen=True)
class Network:
    """A trained network and what it was trained on.

    Attributes:
        title: name and version of its run.
        model: in eval mode.
        data: of its training.
        fingerprint: of the training images.
    """

    title: str
    model: ImageClassifier
    data: CIFAR10DataModule
    fingerprint: str | None

    def features(self, images: Tensor) -> Tensor:
        """Return features of uint8 images (N, 3, 32, 32) without their finest detail, float32 (N, F).

        They are the outputs of the deepest layer with maps of at least 4 x 4 positions, averaged over a grid with at
        most 1,024 numbers in all; of a network without maps those of its last hidden layer, else the pixels. The images
        are scaled to 20 pixels and back before, so that a copy that was compressed has nearly the same features.
        """
        layers = introspection.layers(self.model.net)
        with torch.inference_mode():
            shapes = {
                name: tuple(output.shape[1:]) for name, output in self.outputs(images[:1].to(self.model.device), layers)
            }
        with_maps = [name for name, shape in shapes.items() if len(shape) == 3 and min(shape[1:]) >= SMALLEST_MAP_PX]
        chosen = (with_maps or list(shapes))[-1:]
        if not chosen:
            return coarse(images).flatten(1).float() / 255

        def of_batch(batch: Tensor) -> Tensor:
            outputs = self.outputs(coarse(batch), {name: layers[name] for name in chosen})
            return next(pooled(output) for _, output in outputs)

        return self.in_batches(images, of_batch)

    def outputs(self, batch: Tensor, layers: dict[str, torch.nn.Module]) -> list[tuple[str, Tensor]]:
        """Return the outputs of layers for uint8 images, by name."""
        return list(layer_outputs(self.model.net, layers, self.model.normalize(batch))[1].items())

    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probabilities (N, 10) of uint8 images (N, 3, 32, 32), each as it is."""
        return self.in_batches(images, lambda batch: self.model.predict_logits(batch, "none").float().softmax(1))

    def in_batches(self, images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what a function makes of the images, batch by batch, float32 on the CPU."""
        device = self.model.device
        fast = torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device.type))
        with torch.inference_mode(), fast:
            return torch.cat([function(part.to(device)).float().cpu() for part in images.split(BATCH_SIZE)])

    def held_out(self, train: ImageSet) -> Tensor:
        """Return which training images its training held out, int64; none of a set that it was not trained on.

        (Another set may well have the same images in another order, or all but a few of them.)
        """
        if self.fingerprint != train.fingerprint:
            return torch.empty(0, dtype=torch.long)
        return self.data.held_out(train.labels)


def coarse(images: Tensor) -> Tensor:
    """Return uint8 images (N, 3, H, H) without their finest detail, of the same size."""
    return resize(resize(images, COARSE_PX), images.shape[-1])


def load_networks(runs: Sequence[Run]) -> list[Network]:
    """Load the networks of runs.

    Raises:
        ValueError: If one is not a run, or has no checkpoint.
    """
    found = []
    for run in runs:
        model, data = load_trained(run)
        found.append(Network(run.title, model, data, run.result.get("data", {}).get("fingerprint")))
    return found


def out_of_sample(networks: Sequence[Network], images: ImageSet, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean probabilities of images over the networks that did not train on them.

    Args:
        networks: At least one.
        images: The set.
        rows: For each network, which of the images it did not train on, int64.

    Returns:
        The images that some network did not train on, int64 (M,), and their probabilities, float32 (M, 10).
    """
    total = torch.zeros(len(images), 10)
    for network, chosen in zip(networks, rows, strict=True):
        if len(chosen):
            total[chosen] += network.probabilities(images.images[chosen])
    judged = (total.sum(1) > 0).nonzero()[:, 0]
    return judged, F.normalize(total[judged], p=1, dim=1)
