"""Several runs side by side."""

from __future__ import annotations

from matplotlib.figure import Figure

from cifar_lightning.analysis.curves import generalisation_gap
from cifar_lightning.analysis.explain import MARKERS, PALETTE
from cifar_lightning.analysis.style import new_figure
from cifar_lightning.report.findings import Findings
from cifar_lightning.report.page import Picture, Section, Table
from cifar_lightning.report.run import LoadedRun

__all__ = ["comparison_sections"]


def comparison_sections(runs: list[LoadedRun], found: list[Findings]) -> list[Section]:
    """A table of results, and curves over each other."""
    header = ["run", "split", "accuracy, %", "calibration error", "weights", "MFLOP an image", "fit, s", "gap, points"]
    rows = []
    for run, findings in zip(runs, found, strict=True):
        gap = generalisation_gap(run.history)
        seconds = run.result.get("fit", {}).get("seconds")
        rows.append(
            [
                run.name,
                findings.split,
                f"{100 * findings.accuracy:.2f}",
                f"{findings.calibration.before.error:.4f}",
                f"{sum(p.numel() for p in run.model.parameters()):,}",
                f"{sum(cost.flops for cost in findings.costs.values()) / 1e6:,.1f}",
                "" if seconds is None else f"{seconds:,.0f}",
                f"{100 * gap[-1]:.1f}" if gap else "",
            ]
        )
    caption = "Each image as it is, without test-time augmentation; gap: training minus validation accuracy at the end"
    parts = [Table(header, rows, caption)]
    curves = {run.name: run.history["val/acc"] for run in runs if "val/acc" in run.history}
    pictures = []
    if curves:
        pictures.append(
            Picture(
                "comparison_curves",
                plot_lines(
                    {name: (list(range(1, len(values) + 1)), values) for name, values in curves.items()},
                    "epoch",
                    "Validation accuracy over the epochs",
                ),
                f"Validation accuracy over the epochs of {', '.join(curves)}.",
            )
        )
    pictures.append(
        Picture(
            "comparison_probes",
            plot_lines(
                {
                    run.name: ([i / (len(f.probes) - 1) for i in range(len(f.probes))], list(f.probes.values()))
                    for run, f in zip(runs, found, strict=True)
                },
                "depth, from the pixels (0) to the last hidden layer (1)",
                "Accuracy of a linear classifier on each layer",
            ),
            "Accuracy of linear probes over the depth of each network.",
        )
    )
    return [Section("Side by side", [*parts, *pictures])]


def plot_lines(lines: dict[str, tuple[list, list[float]]], xlabel: str, title: str) -> Figure:
    """Accuracies of several runs in one chart."""
    figure = new_figure(7.2, 4.4, title)
    axes = figure.add_subplot()
    for (name, (x, y)), colour, marker in zip(lines.items(), PALETTE * 9, MARKERS * 9, strict=False):
        axes.plot(x, [100 * value for value in y], marker=marker, color=colour, label=name, markersize=4)
    axes.set(xlabel=xlabel, ylabel="accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
