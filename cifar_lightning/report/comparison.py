"""Several runs side by side."""

from __future__ import annotations

from cifar_lightning.analysis.comparison import plot_bands, plot_dependence
from cifar_lightning.analysis.curves import generalisation_gap
from cifar_lightning.pages import Picture, Section, Table
from cifar_lightning.report.findings import Findings
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
    curves = {run.name: [run.history["val/acc"]] for run in runs if "val/acc" in run.history}
    pictures = []
    if curves:
        title = "Validation accuracy over the epochs"
        figure = plot_bands(curves, "accuracy, %", title)
        pictures.append(Picture("comparison_curves", figure, f"{title} of {', '.join(curves)}."))
    pictures.append(
        Picture(
            "comparison_probes",
            plot_dependence(
                {
                    run.name: {i / (len(f.probes) - 1): [accuracy] for i, accuracy in enumerate(f.probes.values())}
                    for run, f in zip(runs, found, strict=True)
                },
                "depth, from the pixels (0) to the last hidden layer (1)",
                "accuracy, %",
                "Accuracy of a linear classifier on each layer",
            ),
            "Accuracy of linear probes over the depth of each network.",
        )
    )
    return [Section("Side by side", [*parts, *pictures])]
