"""Sections about the network: filters, feature maps, probes, saliency, the map of its features, and its cost."""

from __future__ import annotations

from cifar_lightning import CLASSES
from cifar_lightning.analysis.embedding import embed
from cifar_lightning.analysis.explain import plot_embedding, plot_explanations
from cifar_lightning.analysis.figures import FIGURES, filter_kinds
from cifar_lightning.analysis.mistakes import confident_mistakes
from cifar_lightning.analysis.probes import plot_probes
from cifar_lightning.data.split import evenly_spaced
from cifar_lightning.pages import Block, Picture, Section, Table, Text
from cifar_lightning.report.examination import Examination

__all__ = ["cost", "feature_embedding", "feature_maps", "filters", "linear_probes", "more_figures", "saliency"]

EXPLAINED_IMAGES = 8
"""Images with saliency and Grad-CAM, of each kind."""
PLACED = ("confusion", "reliability", "filters", "feature_maps", "predictions", "mistakes")
"""Figures that other sections show; galleries stand for the predictions."""


def filters(exam: Examination) -> Section | str:
    """Return the filters of the first trained layer, and those of a computed layer below it."""
    figure = FIGURES["filters"](exam.evaluated)
    if isinstance(figure, str):
        return f"Filters: {figure}."
    text = "Each filter is scaled to its largest magnitude; grey is zero."
    kinds = "; ".join(
        f"{kind}: {len(weights)} of {weights.shape[-2]}×{weights.shape[-1]} pixels"
        for kind, weights in filter_kinds(exam.net).items()
    )
    return Section("Filters", [Text(text), Picture("filters", figure, f"Filters of {kinds}.")])


def feature_maps(exam: Examination) -> Section | str:
    """Return the output of each layer for two images, and its statistics over many."""
    figure = FIGURES["feature_maps"](exam.evaluated)
    if isinstance(figure, str):
        return f"Feature maps: {figure}."
    text = (
        "For two images, the output of each layer: the feature maps that vary most over the image, each scaled from "
        "its minimum (black) to its maximum (white)."
    )
    rows = [
        [
            layer,
            f"{statistics.mean:.3f}",
            f"{statistics.std:.3f}",
            f"{100 * statistics.dead:.1f}",
            "×".join(map(str, exam.layer_shapes[layer])),
        ]
        for layer, statistics in exam.layer_statistics.items()
    ]
    header = ["layer", "mean", "standard deviation", "dead units, %", "shape of the output"]
    picture = Picture(
        "feature_maps",
        figure,
        f"Feature maps, {exam.subtitle}: for two images and each layer the maps that vary most.",
        Table(header, rows, "Output of each layer; a dead unit has the same output for every image and place"),
    )
    return Section("Feature maps", [Text(text), picture])


def linear_probes(exam: Examination) -> Section:
    """Return the accuracy of a linear classifier on each layer."""
    best = max(exam.probes, key=lambda name: exam.probes[name])
    text = (
        "A linear classifier (ridge regression to the labels) is fitted to the output of each layer for training "
        f"images, averaged over places to at most 1,024 features, and evaluated on {exam.where}. It reaches "
        f"{100 * exam.probes['pixels']:.1f} % on the pixels and at most {100 * exam.probes[best]:.1f} % ({best}); the "
        f"network reaches {100 * exam.accuracy:.1f} %."
    )
    values = {**exam.probes, "the network": exam.accuracy}
    rows = [[name, f"{100 * value:.2f}"] for name, value in values.items()]
    picture = Picture(
        "probes",
        plot_probes(exam.probes, exam.accuracy, f"Linear probes, {exam.subtitle}"),
        "Accuracy of a linear classifier on the pixels and on each layer, in the order of depth.",
        Table(["layer", "accuracy, %"], rows, "Linear probes"),
    )
    return Section("Linear probes", [Text(text), picture])


def saliency(exam: Examination) -> Section:
    """Return where the network looks, in images that it gets right and in its most confident mistakes."""
    kinds = {
        "hits": ("Correct predictions", exam.correct[evenly_spaced(len(exam.correct), EXPLAINED_IMAGES)]),
        "misses": (
            "Most confident mistakes",
            confident_mistakes(exam.probabilities, exam.labels, EXPLAINED_IMAGES),
        ),
    }
    maps = {name: exam.grad_cam(rows) for name, (_, rows) in kinds.items() if len(rows)}
    text = "Saliency is the magnitude of the gradient of the predicted class at each pixel. "
    if all(cam is None for cam in maps.values()):
        text += "Grad-CAM is left out: no layer of the network has large enough feature maps."
    else:
        text += "Grad-CAM marks the places whose features speak for the predicted class."
    blocks: list[Block] = [Text(text)]
    for name, (title, rows) in kinds.items():
        if name not in maps:
            blocks.append(Text(f"{title}: none."))
            continue
        pairs = zip(exam.labels[rows].tolist(), exam.predictions[rows].tolist(), strict=True)
        names = [CLASSES[p] if p == y else f"{CLASSES[p]}\n(is {CLASSES[y]})" for y, p in pairs]
        title = f"{title}, {exam.subtitle}"
        figure = plot_explanations(exam.images[rows], names, exam.saliency(rows), maps[name], title)
        blocks.append(Picture(name, figure, f"{title}: {', '.join(names)}.".replace("\n", " ")))
    return Section("Saliency and Grad-CAM", blocks)


def feature_embedding(exam: Examination) -> Section | str:
    """Return a map of the penultimate features."""
    if exam.features is None:
        return "Map of the features (t-SNE): the network has no layer between its input and its logits."
    labels = exam.labels[exam.embedded]
    title = f"Penultimate features by t-SNE, {exam.name}, {len(labels):,} {exam.split} images"
    figure = plot_embedding(embed(exam.features), labels, CLASSES, title)
    picture = Picture("features", figure, f"{title}: one point per image, one colour per class.")
    text = "Near points are images with similar penultimate features. Directions and large distances mean nothing."
    return Section("Map of the features (t-SNE)", [Text(text), picture])


def more_figures(exam: Examination) -> Section | None:
    """Return the figures of `FIGURES` that no other section shows, if there are any."""
    blocks: list[Block] = []
    for name in FIGURES:
        if name not in PLACED:
            figure = FIGURES[name](exam.evaluated)
            if isinstance(figure, str):
                blocks.append(Text(f"{name}: {figure}."))
            else:
                blocks.append(Picture(name, figure, f"{figure.get_suptitle()}."))
    return Section("More figures", blocks) if blocks else None


def cost(exam: Examination) -> Section:
    """Return parameters, operations and time of each layer."""
    costs = exam.costs.values()
    params, flops, seconds = (sum(getattr(c, name) for c in costs) for name in ("params", "flops", "seconds"))
    rows = [
        [name, f"{c.params:,}", f"{c.flops / 1e6:,.1f}", f"{1e6 * c.seconds:,.1f}", f"{100 * c.seconds / seconds:.1f}"]
        for name, c in exam.costs.items()
    ]
    rows.append(["all", f"{params:,}", f"{flops / 1e6:,.1f}", f"{1e6 * seconds:,.1f}", "100.0"])
    header = ["layer", "parameters", "MFLOP per image", "µs per image", "share of the time, %"]
    caption = f"Cost of a forward pass in batches of 250 on {exam.device}; a multiply-add counts as two FLOP"
    return Section("Cost by layer", [Table(header, rows, caption)])
