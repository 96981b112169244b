"""Build every combination of a sweep before anything starts: check that it is valid, and estimate its cost."""

from __future__ import annotations

import json
import logging
import statistics
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cifar_lightning.analysis.cost import flops_per_image, time_steps
from cifar_lightning.cli.training import CifarCLI
from cifar_lightning.data.loader import stretch_over_epochs
from cifar_lightning.sweeps.plan import PlannedRun, Sweep

__all__ = ["Cost", "check_runs"]

STEPS = 3
"""Training steps that are timed for an estimate, after one to warm up."""


@dataclass(frozen=True)
class Cost:
    """Cost of one run.

    Attributes:
        params: parameters of the network.
        flops_per_image: FLOP of a forward pass per image.
        devices: devices to train on.
        gpu: whether these are GPUs.
        seconds: estimated time of the training, without start-up and evaluation; NaN if unknown.
    """

    params: int
    flops_per_image: int
    devices: int
    gpu: bool
    seconds: float


def check_runs(sweep: Sweep, runs: list[PlannedRun], estimate: bool = True) -> dict[str, Cost]:
    """Build model, data and trainer of each combination, once for all its seeds.

    Args:
        sweep: the sweep.
        runs: its runs, as `expand` gives them.
        estimate: whether to time a few steps of each.

    Returns:
        The cost of each run by its id.

    Raises:
        ValueError: when combinations are invalid or have the same settings, with the reason for each; or when the
            estimate exceeds `max_hours`.
    """
    costs: dict[str, Cost] = {}
    problems: dict[str, list[str]] = {}  # ids of the runs by problem: many may have the same one
    settings: dict[str, str] = {}  # id of the first run by its settings
    for run in runs:
        if run.seed != sweep.seeds[0]:
            continue
        logging.disable(logging.WARNING)  # the first run logs the same warnings
        try:
            parts = make_parts(run)
            parts.datamodule.setup("fit")
            if (first := settings.setdefault(resolved(parts), run.id)) != run.id:
                raise ValueError(
                    f"same settings as {first}. A class that replaces another keeps the arguments that both have: set "
                    "them in the sweep"
                )
            cost = measure(parts, sweep.cpus, estimate)
        except (ValueError, OSError, ImportError, MisconfigurationException) as error:
            problems.setdefault(str(error), []).append(run.id)
        else:
            costs |= {other.id: cost for other in runs if other.combination == run.combination}
        finally:
            logging.disable(logging.NOTSET)
    if problems:
        raise ValueError(
            f"Expected valid combinations in `{sweep.name}`, got {sum(map(len, problems.values()))} that are not:\n"
            + "\n".join(f"  {join_first(ids)}: {problem}" for problem, ids in problems.items())
        )
    hours = sum(cost.seconds * cost.devices for cost in costs.values()) / 3600
    if sweep.max_hours is not None and hours > sweep.max_hours:
        raise ValueError(
            f"Expected at most `max_hours` {sweep.max_hours:g} hours of training, got an estimate of {hours:.1f} for "
            f"{len(runs)} runs, one after the other. Remove values or epochs, or raise the limit."
        )
    return costs


def join_first(ids: list[str]) -> str:
    """Return the first three ids, and how many more there are."""
    shown = ", ".join(ids[:3])
    return shown if len(ids) <= 3 else f"{shown} and {len(ids) - 3} more"


def make_parts(run: PlannedRun) -> CifarCLI:
    """Return model, data and trainer of a run, which write nothing.

    Raises:
        ValueError: when the command line is invalid.
    """
    return CifarCLI(["fit", *run.arguments(), "--trainer.fast_dev_run=1"])


def resolved(parts: CifarCLI) -> str:
    """Return all settings of a training as a text to compare."""
    config = parts.config.clone()
    config.pop("config", None)
    return json.dumps(config.as_dict(), sort_keys=True, default=str)


def measure(parts: CifarCLI, threads: int, estimate: bool) -> Cost:
    """Return the cost of a training."""
    model, trainer, config = parts.model, parts.trainer, parts.config
    gpu = trainer.strategy.root_device.type == "cuda"
    cost: dict[str, Any] = {
        "params": sum(p.numel() for p in model.net.parameters()),
        "flops_per_image": flops_per_image(model.net),
        "devices": trainer.world_size,
        "gpu": gpu,
    }
    every = parts.datamodule.accumulated_batches(trainer.world_size, config.trainer.accumulate_grad_batches)
    if not estimate:
        return Cost(**cost, seconds=float("nan"))
    loader = parts.datamodule.train_dataloader()
    epochs = config.trainer.max_epochs or 1
    sizes = stretch_over_epochs(parts.datamodule.image_sizes, epochs)
    # The cost of an image is proportional to its pixels.
    share = statistics.fmean((size / 32) ** 2 for size in sizes) if sizes else 1.0
    seconds = step_seconds(parts, threads, every) / every * len(loader) * epochs * share
    return Cost(**cost, seconds=seconds / trainer.world_size)


def step_seconds(parts: CifarCLI, threads: int, every: int) -> float:
    """Return the seconds of an optimizer step on images of 32x32 pixels, with as many threads as the run gets."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    device = parts.trainer.strategy.root_device
    model = parts.model.to(device).train()
    optimizer = model.make_optimizer()
    precision = parts.trainer.precision_plugin.forward_context
    times = time_steps(
        model, optimizer, parts.datamodule.images_per_batch(parts.trainer.world_size), device, precision, STEPS
    )
    torch.set_num_threads(before)
    return statistics.median(every * time.passes + time.update for time in times)
