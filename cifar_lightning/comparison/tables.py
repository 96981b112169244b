"""Tables of a comparison: the results of each group, and tests of their differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from cifar_lightning.analysis.statistics import Summary, mcnemar, paired_interval, paired_tests, summarise, wilson
from cifar_lightning.comparison.groups import Comparison, Group, is_share, mean_and_std, score_text, with_unit
from cifar_lightning.pages import Table
from cifar_lightning.runs import Run

__all__ = ["results", "significance"]

MAX_ALL_PAIRS = 8
"""Of more groups, only the best is tested against the others."""
MAX_OPEN_ROWS = 28
"""A table of tests with more rows is folded: as many as there are pairs of `MAX_ALL_PAIRS` groups."""


def results(comparison: Comparison) -> Table:
    """Return the table of results, with a row for each group."""
    metric = comparison.metric
    names = list(dict.fromkeys([metric, "test/acc", "corruptions/acc", "val/acc", "train/acc"]))
    names = [name for name in names if any(group.values(name) for group in comparison.groups)]
    header = ["group", "n", *map(with_unit, names), f"95 % of {metric}"]
    tested = any(group.values("test/acc") for group in comparison.groups)
    header += ["95 % of test/acc over images"] if tested else []
    counted = any(group.values("training_flops") for group in comparison.groups)  # not in runs of older versions
    training_header = ["training, PFLOP"] if counted else []
    header += ["gap, points", "weights", "MFLOP per image", *training_header, "fit, s", "diverged or failed"]
    rows = []
    for group in comparison.groups:
        params, flops, training = map(group.summary, ("params", "flops_per_image", "training_flops"))
        rows.append(
            [
                group.label,
                str(len(group.values(metric))),
                *(score_text(group.summary(name), name) for name in names),
                interval_text(group.summary(metric), metric),
                *([over_images_text(group)] if tested else []),
                mean_and_std(gap_of(group)),
                f"{params.mean:,.0f}" if params else "",
                f"{flops.mean / 1e6:,.1f}" if flops else "",
                *([f"{training.mean / 1e15:,.3g}" if training else ""] if counted else []),
                mean_and_std(group.summary("seconds"), 1, 0),
                str(sum(run.diverged for run in group.runs)),
            ]
        )
    caption = "Mean ± standard deviation over seeds; gap: training minus validation accuracy at the end"
    return Table(header, rows, caption)


def interval_text(summary: Summary | None, metric: str) -> str:
    """Return the ends of the interval of a mean; empty for one value."""
    if summary is None or summary.half_width is None:
        return ""
    ends = (summary.mean - summary.half_width, summary.mean + summary.half_width)
    return " to ".join(score_text(Summary(1, end, None, None), metric) for end in ends)


def over_images_text(group: Group) -> str:
    """Return the interval that the mean test accuracy has on account of the number of test images."""
    accuracy = group.summary("test/acc")
    images = max((run.result.get("data", {}).get("test", 0) for run in group.finished), default=0)
    if accuracy is None or not images:
        return ""
    return " to ".join(f"{100 * end:.2f}" for end in wilson(accuracy.mean, images))


def gap_of(group: Group) -> Summary | None:
    """Return training minus validation accuracy after the last epoch, which need not be the best one."""
    last = [run.result["fit"].get("metrics", {}) for run in group.finished]
    gaps = [metrics["train/acc"] - metrics["val/acc"] for metrics in last if {"train/acc", "val/acc"} <= metrics.keys()]
    return summarise(gaps) if gaps else None


def significance(comparison: Comparison, baseline: str | None) -> list[Table]:
    """Return paired tests over the seeds, and image by image where there are predictions.

    Args:
        comparison: the groups and their metric.
        baseline: label to test against; None tests every two of a few groups, and of many the best against the others.

    Raises:
        ValueError: when there is no such baseline.
    """
    pairs = pairs_to_test(comparison.groups, baseline)
    return [table for table in (over_seeds(comparison, pairs), over_images(pairs)) if table.rows]


def pairs_to_test(groups: Sequence[Group], baseline: str | None) -> list[tuple[Group, Group]]:
    """Return each group with its baseline; without one all pairs of a few groups, and of many the best with the others.

    Raises:
        ValueError: when there is no such baseline.
    """
    if baseline is None:
        pairs = list(itertools.combinations(groups, 2))
        return pairs if len(groups) <= MAX_ALL_PAIRS else pairs[: len(groups) - 1]
    for group in groups:
        if group.label == baseline:
            return [(other, group) for other in groups if other is not group]
    by_names = {group.names: group for group in groups}
    pairs = []
    for group in groups:
        replaced = [(*group.names[:i], baseline, *group.names[i + 1 :]) for i in range(len(group.names))]
        pairs += [(group, by_names[names]) for names in replaced if names in by_names and names != group.names]
    if not pairs:
        labels = [group.label for group in groups]
        more = " ..." if len(labels) > MAX_ALL_PAIRS else ""
        raise ValueError(
            "Expected `--baseline` to be the label of a group, or one of the names that the label is made of, got "
            f"{baseline!r}. The groups are: {'; '.join(labels[:MAX_ALL_PAIRS])}{more}."
        )
    return pairs


def over_seeds(comparison: Comparison, pairs: Sequence[tuple[Group, Group]]) -> Table:
    """Return paired t-tests of the metric."""
    metric, share = comparison.metric, is_share(comparison.metric)
    values = {group.label: group.values(metric) for group in comparison.groups}
    rows = [
        [
            f"{test.first} − {test.second}",
            str(test.n),
            f"{100 * test.difference:+.2f}" if share else f"{test.difference:+.4f}",
            p_text(test.p),
            p_text(test.adjusted),
        ]
        for test in paired_tests(values, [(first.label, second.label) for first, second in pairs])
    ]
    header = ["difference", "seeds", "points" if share else metric, "p", "p, corrected (Holm)"]
    caption = f"Paired t-tests of {metric} over the seeds that both groups have"
    return Table(header, rows, caption, len(rows) > MAX_OPEN_ROWS)


def over_images(pairs: Sequence[tuple[Group, Group]]) -> Table:
    """Return McNemar's test for pairs of groups, on the lowest seed of which both have predictions."""
    groups = {group.label: group for pair in pairs for group in pair}.values()
    predicted = {
        group.label: [run for run in group.runs if Run(run.folder).predictions_path().is_file()] for group in groups
    }
    correct = {label: {run.seed: correct_images(Run(run.folder)) for run in runs} for label, runs in predicted.items()}
    rows = []
    for first, second in pairs:
        a, b = correct[first.label], correct[second.label]
        seed = min(a.keys() & b.keys(), default=None)
        if seed is not None and len(a[seed]) == len(b[seed]):
            only_first, only_second, p = mcnemar(a[seed], b[seed])
            difference, low, high = (100 * value for value in paired_interval(only_first, only_second, len(a[seed])))
            rows.append(
                [
                    f"{first.label} − {second.label}",
                    str(seed),
                    f"{difference:+.2f} ({low:+.2f} to {high:+.2f})",
                    *(str(only_first), str(only_second), p_text(p)),
                ]
            )
    header = ["difference", "seed", "points (95 %)", "only the first is right", "only the second is right", "p"]
    caption = "McNemar's exact test on the predictions of the test images"
    return Table(header, rows, caption, len(rows) > MAX_OPEN_ROWS)


def correct_images(run: Run) -> list[bool]:
    """Return whether each test image was classified correctly, in the order of the split."""
    predictions = run.predictions()
    return (predictions.labels == predictions.classes).tolist()


def p_text(p: float) -> str:
    """Return a p-value with four decimal places."""
    return "" if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.4f}"
