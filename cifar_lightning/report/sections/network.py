"""Inside the network: filters, feature maps, probes, attention, the map of its features, and what each layer costs."""

from __future__ import annotations

from collections.abc import Sequence

from cifar_lightning import CLASSES
from cifar_lightning.analysis.embedding import embed
from cifar_lightning.analysis.explain import plot_embedding, plot_explanations
from cifar_lightning.analysis.filters import plot_filters
from cifar_lightning.analysis.layers import plot_feature_maps
from cifar_lightning.analysis.probes import plot_probes
from cifar_lightning.models import introspection
from cifar_lightning.pages import Picture, Section, Table, Text
from cifar_lightning.report.findings import Explained, Findings
from cifar_lightning.report.run import LoadedRun
from cifar_lightning.report.sections.words import of, percent

__all__ = ["attention", "cost", "depth", "filters", "separation"]


def filters(run: LoadedRun, found: Findings) -> Section:
    """The first layer and what the layers make of an image."""
    name, row = run.name, found.feature_map_row
    parts: list[Text | Table | Picture] = []
    weights = introspection.first_filters(run.model.net)
    if weights is not None:
        words = f"First-layer filters: {len(weights)} of {weights.shape[-2]}×{weights.shape[-1]} pixels; grey is zero."
        parts.append(Picture("filters", plot_filters(weights.detach(), f"First-layer filters, {name}"), words))
    shown = f"Feature maps of {found.split} image {row} ({CLASSES[int(found.labels[row])]}), {name}"
    rows = [
        [
            layer,
            f"{s.mean:.3f}",
            f"{s.std:.3f}",
            percent(s.dead, 1),
            "×".join(map(str, found.feature_maps[layer].shape)),
        ]
        for layer, s in found.layers.items()
    ]
    header = ["layer", "mean", "standard deviation", "dead units, %", "shape of the output"]
    parts.append(
        Picture(
            "feature_maps",
            plot_feature_maps(found.images[row], found.feature_maps, shown),
            f"{shown}: for each layer the maps that vary most.",
            Table(header, rows, "Activations of each layer; a dead unit puts out the same for every image"),
        )
    )
    return Section("What it sees", parts)


def depth(run: LoadedRun, found: Findings) -> Section:
    """Linear probes."""
    values = list(found.probes.values())
    best = max(found.probes, key=lambda name: found.probes[name])
    text = (
        "A linear classifier (ridge regression onto the labels) is fitted to what each layer makes of training images, "
        f"averaged over places to at most 1,024 numbers, and tried on the {found.split} images. On the pixels it "
        f"reaches {percent(values[0], 1)} %, on {best} {percent(found.probes[best], 1)} %; the network itself reaches "
        f"{percent(found.accuracy, 1)} %."
    )
    rows = [[name, percent(value)] for name, value in found.probes.items()] + [["the network", percent(found.accuracy)]]
    picture = Picture(
        "probes",
        plot_probes(found.probes, found.accuracy, f"Linear probes, {of(run, found)}"),
        "Accuracy of a linear classifier on the pixels and on each layer, in the order of depth.",
        Table(["layer", "accuracy, %"], rows, "Linear probes"),
    )
    return Section("How depth separates the classes", [Text(text), picture])


def attention(run: LoadedRun, found: Findings) -> Section:
    """Where it looks."""
    how = " and Grad-CAM (places whose features speak for it)" if found.hits.cam is not None else ""
    text = f"For the predicted class: the magnitude of the gradient of its logit at each pixel{how}."
    parts: list[Text | Table | Picture] = [Text(text)]
    kinds: Sequence[tuple[str, str, Explained]] = (
        ("hits", "Images that it gets right", found.hits),
        ("misses", "Its most confident mistakes", found.misses),
    )
    for name, words, shown in kinds:
        if not len(shown.indices):
            parts.append(Text(f"{words}: none."))
            continue
        labels, predictions = found.labels[shown.indices].tolist(), found.predictions[shown.indices].tolist()
        names = [
            CLASSES[p] if p == y else f"{CLASSES[p]}\n(is {CLASSES[y]})"
            for y, p in zip(labels, predictions, strict=True)
        ]
        title = f"{words}, {of(run, found)}"
        figure = plot_explanations(found.images[shown.indices], names, shown.saliency, shown.cam, title)
        listed = ", ".join(name.replace("\n", " ") for name in names)
        parts.append(Picture(name, figure, f"{title}: {listed}."))
    return Section("Where it looks", parts)


def separation(run: LoadedRun, found: Findings) -> Section | None:
    """Return a map of the features, if the network has any."""
    if found.features is None:
        return None
    labels = found.labels[found.feature_rows]
    title = f"Penultimate features by t-SNE, {run.name}, {len(labels):,} {found.split} images"
    figure = plot_embedding(embed(found.features), labels, CLASSES, title)
    return Section(
        "How its features lie", [Picture("features", figure, f"{title}: one point an image, one colour a class.")]
    )


def cost(run: LoadedRun, found: Findings) -> Section:
    """What each layer costs."""
    total = sum(c.seconds for c in found.costs.values())
    rows = [
        [name, f"{c.params:,}", f"{c.flops / 1e6:,.1f}", f"{1e6 * c.seconds:,.1f}", percent(c.seconds / total, 1)]
        for name, c in found.costs.items()
    ]
    params, flops = (sum(values) for values in zip(*((c.params, c.flops) for c in found.costs.values()), strict=True))
    rows.append(["all", f"{params:,}", f"{flops / 1e6:,.1f}", f"{1e6 * total:,.1f}", "100.0"])
    header = ["layer", "weights", "MFLOP an image", "µs an image", "of the time, %"]
    caption = (
        f"Cost of a forward pass in batches of 250 on {run.model.device}; a multiplication and an addition are two FLOP"
    )
    return Section("What it costs", [Table(header, rows, caption)])
