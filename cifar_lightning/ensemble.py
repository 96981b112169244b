"""`test` with several runs: the mean of their class probabilities, which is called an ensemble."""

from __future__ import annotations

import itertools
import json
import logging
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cifar_lightning.analysis.statistics import mcnemar, paired_interval, wilson
from cifar_lightning.callbacks.predictions import predictions_csv
from cifar_lightning.cli.training import CifarCLI, process_rank
from cifar_lightning.files import write_text_atomic
from cifar_lightning.metrics import METRICS, ClassificationMetrics
from cifar_lightning.rendezvous import leave_group
from cifar_lightning.runs import Predictions, Run, claim_folder, run_folder

__all__ = ["ensemble"]

logger = logging.getLogger(__name__)

ENSEMBLE = "ensemble.json"
SMALLEST = 5e-7
"""Probabilities in files have six decimal places."""


def ensemble(runs: Sequence[str], options: Sequence[str]) -> int:
    """Test the mean of the probabilities of several runs (deep ensembles, Lakshminarayanan et al. 2017).

    Each run predicts the test images with the views of its recipe, in any number of processes, and the first process
    writes `ensemble.json` and the predictions into a new folder.

    Args:
        runs: At least two different runs, as `--run` takes them.
        options: Other options, for each of the runs.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: If a run is given twice or cannot be tested, or if the runs have different test images.
    """
    folders = [run_folder(run) for run in runs]
    if len(set(map(Path.resolve, folders))) < len(folders):
        raise ValueError(f"Expected different runs to average, got one of them twice: {', '.join(runs)}.")
    for folder in folders:
        _ = Run(folder).config_path, Run(folder).checkpoint("best")
    prints = []
    for folder in folders:
        cli = CifarCLI(["predict", f"--run={folder}", *options])
        cli.run()
        prints.append(cli.datamodule.describe().get("test_fingerprint"))
    leave_group()
    if process_rank():
        return 0
    if len(set(prints)) > 1:
        other = next(i for i, found in enumerate(prints) if found != prints[0])
        raise ValueError(
            f"Expected runs with the same test images, got others in {folders[other]} than in {folders[0]}. Options "
            "such as `--data.root` hold for all runs."
        )
    members = [Run(folder).predictions() for folder in folders]
    averaged = mean_of(members)
    images = "SYNTHETIC images" if cli.datamodule.is_synthetic else "images"
    found = {"runs": [str(folder) for folder in folders], "images": len(averaged.labels), **compared(members, averaged)}
    place = claim_folder(Path("lightning_logs"), "ensemble", None)
    predictions = Run(place).predictions_path()
    predictions.parent.mkdir()
    write_text_atomic(predictions, predictions_csv(averaged.indices, averaged.labels, averaged.probabilities))
    write_text_atomic(place / ENSEMBLE, json.dumps(found, indent=2) + "\n")
    logger.info(f"{summary(found, images)}\nEnsemble: {place / ENSEMBLE}")
    return 0


def mean_of(members: Sequence[Predictions]) -> Predictions:
    """Return the predictions of the mean of the probabilities."""
    probabilities = torch.stack([member.probabilities for member in members]).double().mean(0)
    probabilities = (probabilities / probabilities.sum(1, keepdim=True)).float()
    return Predictions(members[0].indices, members[0].labels, probabilities.argmax(1), probabilities)


def compared(members: Sequence[Predictions], averaged: Predictions) -> dict[str, Any]:
    """Return the metrics of each member and of the mean, and how the members differ.

    Returns:
        "members" and "mean": the metrics; "interval": that of the accuracy of the mean (Wilson, 95 %); "confusion";
        "disagreement": of two members, the share of the images that they put into different classes, the mean over
        all pairs; "gain": accuracy of the mean minus that of the best member, and the ends of its 95 % interval.
    """
    metrics = [measured(member)[0] for member in members]
    mean, confusion = measured(averaged)
    labels, n = averaged.labels, len(averaged.labels)
    best = members[max(range(len(members)), key=lambda i: metrics[i]["acc"])]
    only_mean, only_best, _ = mcnemar((averaged.classes == labels).tolist(), (best.classes == labels).tolist())
    pairs = [float((a.classes != b.classes).double().mean()) for a, b in itertools.combinations(members, 2)]
    return {
        "members": metrics,
        "mean": mean,
        "interval": wilson(mean["acc"], n),
        "disagreement": statistics.fmean(pairs),
        "gain": paired_interval(only_mean, only_best, n),
        "confusion": confusion,
    }


def measured(predictions: Predictions) -> tuple[dict[str, float], list[list[int]]]:
    """Return the metrics of predictions, by the names of `test` without the split, and the confusion matrix."""
    counted = ClassificationMetrics()
    counted.update(predictions.probabilities.clamp(min=SMALLEST).log(), predictions.labels)
    scalars, confusion = counted.compute()
    return {name: float(f"{float(value):.7g}") for name, value in scalars.items()}, confusion.tolist()


def summary(found: dict[str, Any], images: str) -> str:
    """Return a table of the members and their mean, as Markdown.

    Args:
        found: What `ensemble.json` holds.
        images: What was tested on.
    """
    shown = {name: measure.words for name, measure in METRICS.items() if name in found["mean"]}
    rows = [*zip(found["runs"], found["members"], strict=True), ("mean of the probabilities", found["mean"])]
    lines = [
        f"| test on {found['images']:,} {images} | {' | '.join(shown.values())} |",
        f"| --- |{' --- |' * len(shown)}",
        *(f"| {run} | {' | '.join(f'{metrics[name]:.4f}' for name in shown)} |" for run, metrics in rows),
    ]
    gain, low, high = found["gain"]
    lines += [
        f"Two members disagree on {found['disagreement']:.2%} of the images. Mean against best member: "
        f"{100 * gain:+.2f} points (95 % interval over images: {100 * low:+.2f} to {100 * high:+.2f}).",
    ]
    return "\n".join(lines)
