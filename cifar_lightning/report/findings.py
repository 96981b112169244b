"""All that a report says of one run, as numbers and tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cifar_lightning.analysis.attribution import grad_cam, saliency
from cifar_lightning.analysis.calibration import Reliability, fit_temperature, reliability
from cifar_lightning.analysis.cost import LayerCost, layer_costs
from cifar_lightning.analysis.layers import LayerStatistics, layer_outputs, layer_statistics, pooled
from cifar_lightning.analysis.mistakes import confident_mistakes
from cifar_lightning.analysis.probes import probe_accuracy
from cifar_lightning.data.split import ImageSet, evenly_spaced
from cifar_lightning.models import introspection
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.report.run import LoadedRun

__all__ = ["Calibration", "Findings", "examine"]

PROBE_IMAGES = 5000
"""Training images to fit the linear probes on."""
MAP_IMAGES = 2000
"""Images in the map of the penultimate features."""
CAM_PX = 6
"""Grad-CAM takes the deepest layer whose maps have at least this side: fewer places would say little of where."""
LOOKED_AT = 8
"""Images to explain of each kind."""


@dataclass(frozen=True)
class Calibration:
    """Reliability before and after temperature scaling.

    Attributes:
        before: of the network as it was trained.
        after: with the logits divided by the temperature; None where no held-out images can tell it.
        temperature: 1 where it is not known.
    """

    before: Reliability
    after: Reliability | None
    temperature: float


@dataclass(frozen=True)
class Explained:
    """Images with what the network looks at.

    Attributes:
        indices: int64 (B,), in the split.
        saliency: float (B, 32, 32), for the predicted class.
        cam: float (B, 32, 32) in [0, 1], for the predicted class; None for a network without feature maps.
    """

    indices: Tensor
    saliency: Tensor
    cam: Tensor | None


@dataclass(frozen=True)
class Findings:
    """What was found out about a run on one split, from each image as it is (no test-time augmentation).

    Attributes:
        split: "val" or "test".
        images: uint8 (N, 3, 32, 32).
        labels: int64 (N,).
        logits: float (N, 10).
        confusion: int64 (10, 10), true classes in rows.
        calibration: see there.
        probes: accuracy of a linear classifier on the pixels and on each layer.
        features: penultimate features (M, F) of M of the images, spread evenly over the split; None for a network that
            does not end in a linear layer.
        feature_rows: int64 (M,), which those are.
        layers: statistics of each layer over the last batch of images.
        costs: of each layer, forward.
        hits: images that it gets right, one for each class, where there are enough.
        misses: the mistakes that it is surest of.
        feature_maps: outputs of each layer for one image.
        feature_map_row: which that is.
    """

    split: str
    images: Tensor
    labels: Tensor
    logits: Tensor
    confusion: Tensor
    calibration: Calibration
    probes: dict[str, float]
    features: Tensor | None
    feature_rows: Tensor
    layers: dict[str, LayerStatistics]
    costs: dict[str, LayerCost]
    hits: Explained
    misses: Explained
    feature_maps: dict[str, Tensor]
    feature_map_row: int

    @property
    def probabilities(self) -> Tensor:
        """Of shape (N, 10)."""
        return self.logits.softmax(1)

    @property
    def predictions(self) -> Tensor:
        """Of shape (N,), int64."""
        return self.logits.argmax(1)

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return float((self.predictions == self.labels).double().mean())


def examine(run: LoadedRun, split: str) -> Findings:
    """Looks at a network from all sides on the images of one split.

    Args:
        run: the run.
        split: "val" or "test".
    """
    model, shown = run.model, run.split(split)
    net, layers_of_net = model.net, introspection.layers(model.net)
    train = some(run.split("train"), PROBE_IMAGES)
    logits, layers = outputs(model, shown.images)
    _, layers_of_train = outputs(model, train.images)
    predictions = logits.argmax(1)
    right = (predictions == shown.labels).nonzero()[:, 0]
    wrong = confident_mistakes(logits.softmax(1), shown.labels, LOOKED_AT)
    rows = evenly_spaced(len(shown), MAP_IMAGES)
    example = int(right[0]) if len(right) else 0
    few = model.normalize(shown.images[evenly_spaced(len(shown), 250)].to(model.device))
    one = model.normalize(shown.images[example : example + 1].to(model.device))
    with torch.inference_mode():
        features = [
            found.float().cpu()
            for part in rows.split(500)
            if (found := introspection.features(net, model.normalize(shown.images[part].to(model.device)))) is not None
        ]
        statistics = {
            name: layer_statistics(output.float()) for name, output in layer_outputs(net, layers_of_net, few)[1].items()
        }
        maps = {name: output[0].cpu() for name, output in layer_outputs(net, layers_of_net, one)[1].items()}
        costs = layer_costs(net, {name: layers_of_net[name] for name in maps}, few)
    spatial = [layers_of_net[name] for name, output in maps.items() if output.ndim == 3 and output.shape[1] >= CAM_PX]
    last = spatial[-1] if spatial else None
    return Findings(
        split=split,
        images=shown.images,
        labels=shown.labels,
        logits=logits,
        confusion=torch.bincount(shown.labels * 10 + predictions, minlength=100).view(10, 10),
        calibration=calibrate(run, split, logits, shown.labels),
        probes={
            name: probe_accuracy((layers_of_train[name], train.labels), (layer, shown.labels))
            for name, layer in layers.items()
        },
        features=torch.cat(features) if features else None,
        feature_rows=rows,
        layers=statistics,
        costs=costs,
        hits=explain(model, last, shown, right[evenly_spaced(len(right), LOOKED_AT)], predictions),
        misses=explain(model, last, shown, wrong, predictions),
        feature_maps=maps,
        feature_map_row=example,
    )


def outputs(model: ImageClassifier, images: Tensor, batch_size: int = 500) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (N, 10), and what each layer makes of the images, the pixels first: (N, at most 1024 features)."""
    logits: list[Tensor] = []
    layers_of_net = introspection.layers(model.net)
    layers: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = model.normalize(images[start : start + batch_size].to(model.device))
            answer, found = layer_outputs(model.net, layers_of_net, batch)
            logits.append(answer.float().cpu())
            for name, output in {"pixels": batch, **found}.items():
                layers.setdefault(name, []).append(pooled(output.float()).cpu())
    return torch.cat(logits), {name: torch.cat(parts) for name, parts in layers.items()}


def calibrate(run: LoadedRun, split: str, logits: Tensor, labels: Tensor) -> Calibration:
    """Reliability before and after temperature scaling, which the validation images fit.

    For the validation images themselves every second one fits, and the others show what it gives.
    """
    fit, fit_labels = logits[::2], labels[::2]
    if split == "val":
        logits, labels = logits[1::2], labels[1::2]
    elif run.data.val_size:
        held_out = run.split("val")
        fit, fit_labels = outputs(run.model, held_out.images)[0], held_out.labels
    before = reliability(logits.softmax(1), labels)
    if not run.data.val_size:
        return Calibration(before, None, 1.0)
    temperature = fit_temperature(fit, fit_labels)
    return Calibration(before, reliability((logits / temperature).softmax(1), labels), temperature)


def explain(
    model: ImageClassifier, layer: nn.Module | None, split: ImageSet, rows: Tensor, predictions: Tensor
) -> Explained:
    """What the network looks at in some of the images; the layer, if there is one, is that of Grad-CAM."""
    images = model.normalize(split.images[rows].to(model.device))
    targets = predictions[rows].to(model.device)
    cam = None if layer is None else grad_cam(model.net, layer, images, targets).cpu()
    return Explained(rows, saliency(model.net, images, targets).cpu(), cam)


def some(split: ImageSet, count: int) -> ImageSet:
    """At most `count` images of a split, spread evenly."""
    rows = evenly_spaced(len(split), count)
    return ImageSet(split.images[rows], split.labels[rows], split.fingerprint)
