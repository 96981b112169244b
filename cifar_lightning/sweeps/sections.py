"""What a comparison shows: tables of statistics over seeds, tests, and charts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from cifar_lightning import CLASSES
from cifar_lightning.analysis.charts import plot_bands, plot_classes, plot_cost
from cifar_lightning.analysis.mistakes import confused_pairs
from cifar_lightning.analysis.statistics import Summary, mcnemar, paired_tests, summarise
from cifar_lightning.data.split import evenly_spaced
from cifar_lightning.metrics import direction
from cifar_lightning.pages import Picture, Table, Text
from cifar_lightning.runs import Run
from cifar_lightning.sweeps.groups import Group, as_key

__all__ = [
    "Part",
    "best_first",
    "by_class",
    "costs",
    "curves",
    "mean_of",
    "percent",
    "results",
    "score_text",
    "significance",
    "with_unit",
]

LINES = 12
"""Groups in a chart of curves: more, and nobody could follow one."""
COLUMNS = 8
"""Epochs in a table of curves."""
CONFUSIONS = 5
"""Pairs of classes shown of each group."""
ROWS = 28
"""A table of tests with more rows is folded: as many as there are pairs of eight groups."""
PAIRS_OF = 8
"""So many groups at most are tested against each other; of more, the best is tested against the others."""

Part = Text | Table | Picture


def mean_of(group: Group, metric: str) -> float:
    """Mean over seeds, below all others where no run has the metric."""
    values = group.values(metric)
    return summarise(list(values.values())).mean if values else -math.inf


def best_first(groups: Sequence[Group], metric: str) -> list[Group]:
    """Return groups from the best mean of a metric to the worst, and then those in which no run has it."""
    sign = 1 if direction(metric) == "max" else -1
    return sorted(groups, key=lambda group: (not group.values(metric), -sign * mean_of(group, metric)))


def percent(metric: str) -> bool:
    """Return whether a metric is a share, which is shown in percent."""
    return "acc" in metric


def with_unit(metric: str) -> str:
    """Return the name of a metric with its unit, for the head of a column or an axis."""
    return f"{metric}, %" if percent(metric) else metric


def score_text(summary: Summary | None, metric: str) -> str:
    """Return mean ± standard deviation of a metric in its unit."""
    return spread_text(summary) if percent(metric) else spread_text(summary, 1, 4)


def spread_text(summary: Summary | None, factor: float = 100, places: int = 2) -> str:
    """Mean ± standard deviation."""
    if summary is None:
        return ""
    mean = f"{factor * summary.mean:,.{places}f}"
    return mean if summary.std is None else f"{mean} ± {factor * summary.std:,.{places}f}"


def summary_of(group: Group, metric: str) -> Summary | None:
    """Of the finished runs of a group; None where none has the metric."""
    values = list(group.values(metric).values())
    return summarise(values) if values else None


def results(groups: Sequence[Group], metric: str) -> Table:
    """A row for each group."""
    names = list(dict.fromkeys([metric, "test/acc", "val/acc", "train/acc"]))
    names = [name for name in names if any(group.values(name) for group in groups)]
    header = ["group", "n", *(with_unit(name) for name in names), f"95 % of {metric}"]
    header += ["gap, points", "weights", "MFLOP an image", "fit, s", "diverged or failed"]
    rows = []
    for group in groups:
        main = summary_of(group, metric)
        interval = ""
        if main is not None and main.half_width is not None:
            ends = (Summary(1, main.mean + sign * main.half_width, None, None) for sign in (-1, 1))
            interval = " to ".join(score_text(end, metric) for end in ends)
        scores = [score_text(summary_of(group, name), name) for name in names]
        params, flops = (summary_of(group, name) for name in ("params", "flops_per_image"))
        rows.append(
            [
                group.label,
                str(main.n if main else 0),
                *scores,
                interval,
                spread_text(gap_of(group)),
                f"{params.mean:,.0f}" if params else "",
                f"{flops.mean / 1e6:,.1f}" if flops else "",
                spread_text(summary_of(group, "seconds"), 1, 0),
                str(sum(run.diverged for run in group.runs)),
            ]
        )
    return Table(
        header, rows, "Mean ± standard deviation over seeds; gap: training minus validation accuracy at the end"
    )


def gap_of(group: Group) -> Summary | None:
    """Training minus validation accuracy after the last epoch, which need not be the best one."""
    last = [run.result["fit"].get("metrics", {}) for run in group.runs if run.finished]
    gaps = [m["train/acc"] - m["val/acc"] for m in last if {"train/acc", "val/acc"} <= m.keys()]
    return summarise(gaps) if gaps else None


def significance(groups: Sequence[Group], metric: str, baseline: str | None) -> list[Part]:
    """Paired tests over seeds, and image by image where the predictions are there.

    Raises:
        ValueError: when there is no such baseline.
    """
    pairs = chosen_pairs(groups, baseline)
    found = paired_tests({group.label: group.values(metric) for group in groups}, pairs)
    parts: list[Part] = []
    if found:
        rows = [
            [
                f"{test.first} − {test.second}",
                str(test.n),
                f"{100 * test.difference:+.2f}" if percent(metric) else f"{test.difference:+.4f}",
                number(test.p),
                number(test.adjusted),
            ]
            for test in found
        ]
        header = ["difference", "seeds", "points" if percent(metric) else metric, "p", "p, corrected (Holm)"]
        parts.append(
            Table(header, rows, f"Paired t-tests of {metric} over the seeds that both groups have", len(rows) > ROWS)
        )
    if rows := image_by_image(groups, pairs):
        header = ["networks", "seed", "only the first is right", "only the second is right", "p"]
        parts.append(
            Table(header, rows, "McNemar's exact test on the predictions of the test images", len(rows) > ROWS)
        )
    return parts


def chosen_pairs(groups: Sequence[Group], baseline: str | None) -> list[tuple[str, str]]:
    """Each group with its baseline; without one all pairs of a few groups, and of many the best with the others."""
    labels = [group.label for group in groups]
    if baseline is None:
        pairs = list(itertools.combinations(labels, 2))
        return pairs if len(labels) <= PAIRS_OF else pairs[: len(labels) - 1]
    if baseline in labels:
        return [(label, baseline) for label in labels if label != baseline]
    pairs = []
    for label in labels:
        parts = label.split(", ")
        replaced = [", ".join([*parts[:i], baseline, *parts[i + 1 :]]) for i in range(len(parts))]
        pairs += [(label, other) for other in replaced if other in labels and other != label]
    if not pairs:
        raise ValueError(
            f"Expected `--baseline` to be the label of a group, or the part in which groups differ from one, got "
            f"{baseline!r}. The groups are: {'; '.join(labels[:PAIRS_OF])}{' ...' if len(labels) > PAIRS_OF else ''}."
        )
    return pairs


def image_by_image(groups: Sequence[Group], pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Rows of McNemar's test for pairs of groups, on the lowest seed whose predictions both have."""
    right: dict[str, dict[int, list[bool]]] = {}
    for group in groups:
        found = {run.seed: Run(run.folder) for run in group.runs}
        read = {seed: run.predictions() for seed, run in found.items() if run.predictions_path().is_file()}
        right[group.label] = {seed: (p.labels == p.classes).tolist() for seed, p in read.items()}
    rows = []
    for first, second in pairs:
        shared = sorted(right[first].keys() & right[second].keys())
        if shared and len(right[first][shared[0]]) == len(right[second][shared[0]]):
            only_first, only_second, p = mcnemar(right[first][shared[0]], right[second][shared[0]])
            rows.append([f"{first}; {second}", str(shared[0]), str(only_first), str(only_second), number(p)])
    return rows


def number(p: float) -> str:
    """A p-value."""
    return "" if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def costs(groups: Sequence[Group], metric: str) -> list[Part]:
    """Return the metric against parameters, operations and time."""
    parts: list[Part] = []
    for name, words in (
        ("params", "weights"),
        ("flops_per_image", "FLOP of a forward pass of one image"),
        ("depth", "layers with trained weights"),
        ("seconds", "seconds of training"),
    ):
        points = {}
        for group in groups:
            cost, value = summary_of(group, name), summary_of(group, metric)
            if cost and value and cost.mean > 0:
                points[group.label] = (cost.mean, value)
        if len({cost for cost, _ in points.values()}) > 1:
            title = f"{metric} against {words}, {len(points)} groups"
            rows = [[k, f"{cost:,.0f}", score_text(value, metric)] for k, (cost, value) in points.items()]
            numbers = Table(["group", words, with_unit(metric)], rows, title)
            factor = 100 if percent(metric) else 1
            figure = plot_cost(points, words, with_unit(metric), title, factor, direction(metric))
            parts.append(Picture(f"cost_{name}", figure, f"{title}, one point each.", numbers))
    return parts


def leaders(groups: Sequence[Group]) -> tuple[list[Group], str]:
    """Groups for a chart, best first, and words for its title that say which, if they are not all.

    Of too many, the best of each kind: groups are of one kind when they differ in numbers alone, as learning rates.
    """
    if len(groups) <= LINES:
        return list(groups), ""
    kinds: dict[str, Group] = {}
    for group in groups:
        settings = {key: value for key, value in group.point.items() if not isinstance(value, int | float)}
        kinds.setdefault(as_key(settings), group)
    if 1 < len(kinds) <= LINES:
        return list(kinds.values()), f", the best of each kind of {len(groups)} groups"
    return list(groups[:LINES]), f", the best {LINES} of {len(groups)} groups"


def curves(groups: Sequence[Group]) -> list[Part]:
    """Validation accuracy and generalisation gap over the epochs."""
    parts: list[Part] = []
    shown, which = leaders(
        [group for group in groups if any(run.history.get("val/acc") for run in group.runs if run.finished)]
    )
    val = {g.label: [r.history["val/acc"] for r in g.runs if r.finished and r.history.get("val/acc")] for g in shown}
    if val:
        title = f"Validation accuracy over the epochs{which}"
        figure = plot_bands(val, "validation accuracy, %", title)
        length = max(len(seed) for seeds in val.values() for seed in seeds)
        epochs = [int(epoch) + 1 for epoch in evenly_spaced(length, COLUMNS)]
        rows = [[name, *(spread_text(at_epoch(seeds, epoch)) for epoch in epochs)] for name, seeds in val.items()]
        numbers = Table(["group", *(f"epoch {epoch}, %" for epoch in epochs)], rows, title)
        parts.append(Picture("curves_val", figure, f"{title}; the band is the range of the seeds.", numbers))
        gaps = {
            g.label: [
                [a - b for a, b in zip(r.history["train/acc"], r.history["val/acc"], strict=False)]
                for r in g.runs
                if r.finished and r.history.get("val/acc") and r.history.get("train/acc")
            ]
            for g in shown
        }
        title = f"Training minus validation accuracy{which}"
        figure = plot_bands({k: v for k, v in gaps.items() if v}, "generalisation gap, points", title)
        parts.append(Picture("curves_gap", figure, f"{title}; the band is the range of the seeds."))
    return parts


def at_epoch(seeds: Sequence[Sequence[float]], epoch: int) -> Summary | None:
    """Of the curves of the seeds that got that far; epochs count from 1."""
    values = [seed[epoch - 1] for seed in seeds if len(seed) >= epoch]
    return summarise(values) if values else None


def by_class(groups: Sequence[Group]) -> list[Part]:
    """Accuracy on the test images of each class: where the errors of a network lie."""
    shown, which = leaders([g for g in groups if all(g.values(f"test/class_acc/{name}") for name in CLASSES)])
    if not shown:
        return []
    summaries = {g.label: [summary_of(g, f"test/class_acc/{name}") for name in CLASSES] for g in shown}
    title = f"Test accuracy of each class{which}"
    rows = [[name, *(spread_text(summary, places=1) for summary in row)] for name, row in summaries.items()]
    means = {name: [summary.mean for summary in row if summary] for name, row in summaries.items()}
    figure = plot_classes(means, CLASSES, title)
    numbers = Table(["group", *(f"{name}, %" for name in CLASSES)], rows, title)
    return [Picture("classes", figure, f"{title}, mean over seeds.", numbers), confusions(shown)]


def confusions(groups: Sequence[Group]) -> Table:
    """The classes that each group takes for each other most often, on the test images of all its seeds."""
    rows = []
    for group in groups:
        matrices = [run.result["test"]["confusion"] for run in group.runs if run.finished]
        pairs = confused_pairs(torch.tensor(matrices).sum(0), CONFUSIONS)
        words = [f"{CLASSES[p.label]} as {CLASSES[p.prediction]}: {100 * p.share:.1f}" for p in pairs]
        rows.append([group.label, *words, *[""] * (CONFUSIONS - len(words))])
    header = ["group", *(f"{n}." for n in range(1, CONFUSIONS + 1))]
    return Table(header, rows, "Most frequent confusions: true class as predicted one, % of the images of the true one")
