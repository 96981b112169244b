"""A run under examination: what the sections of a report ask about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from cifar_lightning.analysis.activations import LayerStatistics, layer_outputs, layer_statistics, pooled
from cifar_lightning.analysis.attribution import grad_cam, saliency
from cifar_lightning.analysis.calibration import Reliability, fit_temperature, reliability
from cifar_lightning.analysis.cost import LayerCost, layer_costs
from cifar_lightning.analysis.figures import Evaluated
from cifar_lightning.analysis.probes import probe_accuracy
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.split import ImageSet, evenly_spaced
from cifar_lightning.metrics import METRICS, ClassificationMetrics
from cifar_lightning.models import introspection
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.runs import Run
from cifar_lightning.trained import load_trained

__all__ = ["Calibration", "Examination"]

BATCH_SIZE = 500
PROBE_IMAGES = 5000
"""Training images to fit the linear probes to."""
MEASURED_IMAGES = 250
"""Images for the statistics and the cost of each layer."""
EMBEDDED_IMAGES = 2000
"""Images in the map of the features."""
CAM_SIDE_PX = 6
"""Smallest feature maps for Grad-CAM: coarser ones would hardly tell one place from another."""


@dataclass(frozen=True)
class Calibration:
    """Reliability before and after temperature scaling.

    Attributes:
        before: of the trained network.
        after: with the logits divided by the temperature; None without held-out images to fit it to.
        temperature: 1 without held-out images.
    """

    before: Reliability
    after: Reliability | None
    temperature: float


class Examination:
    """A trained network and its answers for the images of one split, without test-time augmentation.

    Every property is computed when it is first read, and then kept. All tensors are on the CPU.

    Args:
        run: the run.
        split: "val" or "test".
        gallery_images: most images in a gallery.
        trained: the network and its data, if they are loaded already.

    Raises:
        ValueError: If the run has no checkpoint, or holds files that cannot be read; raised by the first property that
            needs them.
    """

    def __init__(
        self,
        run: Run,
        split: str,
        gallery_images: int = 24,
        trained: tuple[ImageClassifier, CIFAR10DataModule] | None = None,
    ) -> None:
        self.run = run
        self.split = split
        self.gallery_images = gallery_images
        self._given = trained

    @cached_property
    def _trained(self) -> tuple[ImageClassifier, CIFAR10DataModule]:
        return self._given or load_trained(self.run)

    @property
    def model(self) -> ImageClassifier:
        """The network with its normalisation, in eval mode."""
        return self._trained[0]

    @property
    def data(self) -> CIFAR10DataModule:
        """The data of the run."""
        return self._trained[1]

    @property
    def name(self) -> str:
        """Name and version of the run, such as cnn/version_0."""
        return self.run.title

    @cached_property
    def history(self) -> dict[str, list[float]]:
        """Metrics by name, one value per epoch, NaN for an epoch without one."""
        return self.run.history()

    @cached_property
    def steps(self) -> dict[str, tuple[list[int], list[float]]]:
        """Steps and values by tag, of what TensorBoard shows as curves."""
        return self.run.steps()

    @property
    def net(self) -> nn.Module:
        """The network, from normalised images to logits, in eval mode."""
        return self.model.net

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return self.model.device

    @property
    def is_synthetic(self) -> bool:
        """Whether the images are rendered stand-ins."""
        return self.data.is_synthetic

    @cached_property
    def parameters(self) -> int:
        """Number of weights, trained or not."""
        return sum(parameter.numel() for parameter in self.net.parameters())

    @cached_property
    def _shown(self) -> ImageSet:
        return self.image_set(self.split)

    @property
    def images(self) -> Tensor:
        """uint8 (N, 3, 32, 32)."""
        return self._shown.images

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""
        return self._shown.labels

    @property
    def where(self) -> str:
        """Number and split of the images, such as "5,000 val images"."""
        return f"{len(self.labels):,} {self.split} {'SYNTHETIC images' if self.is_synthetic else 'images'}"

    @property
    def subtitle(self) -> str:
        """Run and images, as in the title of each figure."""
        return f"{self.name}, {self.where}"

    @cached_property
    def _answers(self) -> tuple[Tensor, dict[str, Tensor]]:
        return self._evaluate(self.images, self.layers)

    @property
    def logits(self) -> Tensor:
        """float32 (N, 10)."""
        return self._answers[0]

    @property
    def layer_features(self) -> dict[str, Tensor]:
        """The pixels and the output of each layer, averaged over places: float32 (N, at most 1024)."""
        return self._answers[1]

    @cached_property
    def evaluated(self) -> Evaluated:
        """What the figures show."""
        return Evaluated(
            net=self.net,
            normalize=self.model.normalize,
            images=self.images,
            labels=self.labels,
            logits=self.logits,
            run=self.name,
            where=self.where,
            gallery_images=self.gallery_images,
        )

    @property
    def probabilities(self) -> Tensor:
        """float32 (N, 10)."""
        return self.evaluated.probabilities

    @property
    def predictions(self) -> Tensor:
        """int64 (N,)."""
        return self.evaluated.predictions

    @cached_property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return float((self.predictions == self.labels).double().mean())

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Metrics by name, without those that have a number for each class."""
        metrics = ClassificationMetrics()
        metrics.update(self.logits, self.labels)
        return {name: float(value) for name, value in metrics.compute()[0].items() if name in METRICS}

    @property
    def confusion(self) -> Tensor:
        """int64 (10, 10), true classes in rows and predicted classes in columns."""
        return self.evaluated.confusion

    @cached_property
    def correct(self) -> Tensor:
        """int64, the images that the network gets right."""
        return (self.predictions == self.labels).nonzero()[:, 0]

    @cached_property
    def calibration(self) -> Calibration:
        """Reliability before and after temperature scaling.

        The validation images fit the temperature. If the report is about them, every second image fits it and the
        others show its effect.
        """
        logits, labels, data = self.logits, self.labels, self.data
        fit, fit_labels = logits[::2], labels[::2]
        if self.split == "val":
            logits, labels = logits[1::2], labels[1::2]
        elif data.val_size:
            held_out = self.image_set("val")
            fit, fit_labels = self.logits_of(held_out.images), held_out.labels
        before = reliability(logits.softmax(1), labels)
        if not data.val_size:
            return Calibration(before, None, 1.0)
        temperature = fit_temperature(fit, fit_labels)
        return Calibration(before, reliability((logits / temperature).softmax(1), labels), temperature)

    @cached_property
    def layers(self) -> dict[str, nn.Module]:
        """The hidden layers by name."""
        return introspection.layers(self.net)

    @cached_property
    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of the output of each layer for one image: (units,) or (channels, h, w). Others are left out."""
        with torch.inference_mode():
            outputs = layer_outputs(self.net, self.layers, self.inputs(torch.tensor([0])))[1]
        return {name: tuple(output.shape[1:]) for name, output in outputs.items()}

    @cached_property
    def layer_statistics(self) -> dict[str, LayerStatistics]:
        """Mean, deviation and dead units of each layer over 250 images."""
        with torch.inference_mode():
            outputs = layer_outputs(self.net, self.layers, self._measured)[1]
            return {name: layer_statistics(output.float()) for name, output in outputs.items()}

    @cached_property
    def costs(self) -> dict[str, LayerCost]:
        """Parameters, operations and time of each layer in a forward pass, and of the rest of the network."""
        with torch.inference_mode():
            return layer_costs(self.net, {name: self.layers[name] for name in self.layer_shapes}, self._measured)

    @cached_property
    def probes(self) -> dict[str, float]:
        """Accuracy of a linear classifier on the pixels and on the output of each layer, fitted to training images."""
        train = self.image_set("train")
        rows = evenly_spaced(len(train), PROBE_IMAGES)
        features = self._evaluate(train.images[rows], self.layers)[1]
        return {
            name: probe_accuracy((features[name], train.labels[rows]), (output, self.labels))
            for name, output in self.layer_features.items()
        }

    @cached_property
    def embedded(self) -> Tensor:
        """int64 (M,), the images in the map of the features, spread evenly over the split."""
        return evenly_spaced(len(self.labels), EMBEDDED_IMAGES)

    @cached_property
    def features(self) -> Tensor | None:
        """Penultimate features of those images, float32 (M, F); None if the network has no layers."""
        parts = []
        with torch.inference_mode():
            for rows in self.embedded.split(BATCH_SIZE):
                features = introspection.features(self.net, self.inputs(rows))
                if features is None:
                    return None
                parts.append(features.float().cpu())
        return torch.cat(parts)

    def image_set(self, split: str) -> ImageSet:
        """Return the images of "train", "val" or "test"."""
        if getattr(self.data, split) is None:
            self.data.setup("test" if split == "test" else "fit")
        return cast(ImageSet, getattr(self.data, split))

    def inputs(self, rows: Tensor) -> Tensor:
        """Return some of the images as the network takes them, on its device."""
        return self.evaluated.inputs(rows)

    def saliency(self, rows: Tensor) -> Tensor:
        """Return the gradient of the predicted class at the pixels of some images, float32 (n, 32, 32)."""
        return saliency(self.net, self.inputs(rows), self.predictions[rows].to(self.device)).cpu()

    def grad_cam(self, rows: Tensor) -> Tensor | None:
        """Return Grad-CAM for the predicted class of some images, float32 (n, 32, 32) in [0, 1].

        It looks at the deepest layer whose feature maps have at least 6×6 pixels; None if there is no such layer.
        """
        spatial = [name for name, shape in self.layer_shapes.items() if min(shape[1:], default=0) >= CAM_SIDE_PX]
        if not spatial:
            return None
        targets = self.predictions[rows].to(self.device)
        return grad_cam(self.net, self.layers[spatial[-1]], self.inputs(rows), targets).cpu()

    @property
    def _measured(self) -> Tensor:
        return self.inputs(evenly_spaced(len(self.labels), MEASURED_IMAGES))

    def logits_of(self, images: Tensor) -> Tensor:
        """Return the logits (N, 10) of uint8 images (N, 3, 32, 32)."""
        return self._evaluate(images, {})[0]

    def _evaluate(self, images: Tensor, layers: dict[str, nn.Module]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits of images, and the features of the pixels and of some layers."""
        logits: list[Tensor] = []
        features: dict[str, list[Tensor]] = {}
        with torch.inference_mode():
            for part in images.split(BATCH_SIZE):
                batch = self.model.normalize(part.to(self.device))
                answer, outputs = layer_outputs(self.net, layers, batch)
                logits.append(answer.float().cpu())
                for name, output in {"pixels": batch, **outputs}.items():
                    features.setdefault(name, []).append(pooled(output.float()).cpu())
        return torch.cat(logits), {name: torch.cat(parts) for name, parts in features.items()}
