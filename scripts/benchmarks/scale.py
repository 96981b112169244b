"""Images a second against batch size, width, depth, precision, threads and devices."""

from __future__ import annotations

import argparse
import functools
import statistics
from typing import Any

import torch

from cifar_lightning.analysis.cost import time_steps
from cifar_lightning.callbacks.memory import keep_freed_memory
from cifar_lightning.models.cnn import CNN, CNNClassifier
from cifar_lightning.precision import native_precision

__all__ = ["bench_scale"]

BASE = {"batch_size": 125, "width": 64, "depth": 2}
"""Images a step, channels of the first of three stages (the others have four times as many), convolutions a stage."""
AXES: dict[str, list[int]] = {"batch_size": [32, 125, 500, 1000], "width": [32, 64, 128], "depth": [1, 2, 3]}


def images_per_second(point: dict[str, int], device: torch.device, precision: str, steps: int) -> list[float]:
    """Rates of a few training steps (forward, backward, SGD) on random images, after two that do not count."""
    widths = [point["width"], 4 * point["width"], 4 * point["width"]]
    model = CNNClassifier(CNN(widths, point["depth"], whiten_px=2), channels_last=True).to(device)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    autocast = functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    times = time_steps(model, optimizer, point["batch_size"], device, autocast, steps, uncounted=2)
    return [point["batch_size"] / sum(time) for time in times]


def bench_scale(args: argparse.Namespace) -> dict[str, Any]:
    """Images a second of training steps of the CNN in the fastest precision, one axis at a time, on all devices."""
    keep_freed_memory()
    all_threads = torch.get_num_threads()
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    rows: list[dict[str, Any]] = []

    def measure(axis: str, point: dict[str, int], device: str, precision: str, threads: int) -> None:
        torch.set_num_threads(threads)
        rates = images_per_second(point, torch.device(device), precision, args.steps)
        where = {"device": device, "precision": precision, "threads": threads}
        rows.append({"axis": axis, **where, **point, "images_per_second": rates})
        print(
            f"{axis:10} {device:6} {precision:10} {threads:7} "
            f"{point['batch_size']:10} {point['width']:6} {point['depth']:6} {statistics.median(rates):12,.0f}"
        )

    print(
        f"{'axis':10} {'device':6} {'precision':10} {'threads':>7} "
        f"{'batch_size':>10} {'width':>6} {'depth':>6} {'images/s':>12}"
    )
    for device in devices:
        native = native_precision(device)
        for axis, values in AXES.items():
            for value in values:
                measure(axis, {**BASE, axis: value}, device, native, all_threads)
        for precision in sorted({"32-true", native}):
            measure("precision", BASE, device, precision, all_threads)
    for threads in sorted({1, max(1, all_threads // 2), all_threads}):
        measure("threads", BASE, "cpu", native_precision("cpu"), threads)
    torch.set_num_threads(all_threads)
    return {"steps": args.steps, "rows": rows}
