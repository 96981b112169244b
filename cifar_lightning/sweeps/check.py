"""A look at every combination of a sweep before anything starts: is it valid, and what will it cost?"""

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
"""Training steps that an estimate is made from, after one that does not count."""


@dataclass(frozen=True)
class Cost:
    """What one run takes.

    Attributes:
        params: parameters of the network.
        flops_per_image: of a forward pass.
        devices: that it trains on.
        gpu: whether those are GPUs.
        seconds: of its training, estimated from a few steps; start-up and evaluation are not in it.
    """

    params: int
    flops_per_image: int
    devices: int
    gpu: bool
    seconds: float


def check_runs(sweep: Sweep, runs: list[PlannedRun], estimate: bool = True) -> dict[str, Cost]:
    """Makes the parts of each combination, once for all its seeds.

    Args:
        sweep: the sweep.
        runs: its runs, as `expand` gives them.
        estimate: time a few steps of each; else the seconds are NaN.

    Returns:
        The cost of each run by its id.

    Raises:
        ValueError: naming every combination that is wrong or comes to the same settings as another, and why; or when
            the estimate exceeds `max_hours`.
    """
    costs: dict[str, Cost] = {}
    problems: dict[str, list[str]] = {}  # which runs have it; all of them may have the same
    settings: dict[str, str] = {}  # whose they are
    for run in runs:
        if run.seed != sweep.seeds[0]:
            continue
        logging.disable(logging.WARNING)  # each would say what the first run is going to say
        try:
            parts = make_parts(run)
            parts.datamodule.setup("fit")
            if (first := settings.setdefault(resolved(parts), run.id)) != run.id:
                raise ValueError(
                    f"got every setting as in {first}. A class that takes another's place keeps those arguments of the "
                    "other that it has too: say them in the sweep"
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
            f"Expected every combination of `{sweep.name}` to be one that `fit` takes, got "
            f"{sum(map(len, problems.values()))} that are not:\n"
            + "\n".join(f"  {few(ids)}: {problem}" for problem, ids in problems.items())
        )
    hours = sum(cost.seconds * cost.devices for cost in costs.values()) / 3600
    if sweep.max_hours is not None and hours > sweep.max_hours:
        raise ValueError(
            f"Expected at most `max_hours` {sweep.max_hours:g} hours of training, got an estimate of {hours:.1f} for "
            f"{len(runs)} runs, one after the other. Take values or epochs away, or raise the limit."
        )
    return costs


def few(ids: list[str]) -> str:
    """The first of some names, and how many more there are."""
    shown = ", ".join(ids[:3])
    return shown if len(ids) <= 3 else f"{shown} and {len(ids) - 3} more"


def make_parts(run: PlannedRun) -> CifarCLI:
    """Model, data and trainer of a run, which touch no folder.

    Raises:
        ValueError: when the command line is wrong.
    """
    return CifarCLI(["fit", *run.arguments(), "--trainer.fast_dev_run=1"])


def resolved(parts: CifarCLI) -> str:
    """Every setting of a training, whichever files and options said it."""
    config = parts.config.clone()
    config.pop("config", None)
    return json.dumps(config.as_dict(), sort_keys=True, default=str)


def measure(parts: CifarCLI, threads: int, estimate: bool) -> Cost:
    """The cost of a training."""
    model, trainer, config = parts.model, parts.trainer, parts.config
    gpu = trainer.strategy.root_device.type == "cuda"
    cost: dict[str, Any] = {
        "params": sum(p.numel() for p in model.parameters()),
        "flops_per_image": flops_per_image(model.net),
        "devices": trainer.world_size,
        "gpu": gpu,
    }
    if not estimate:
        return Cost(**cost, seconds=float("nan"))
    loader = parts.datamodule.train_dataloader()
    epochs = config.trainer.max_epochs or 1
    sizes = stretch_over_epochs(parts.datamodule.image_sizes, epochs)
    # Small images cost in proportion to their pixels.
    share = statistics.fmean((size / 32) ** 2 for size in sizes) if sizes else 1.0
    every = parts.datamodule.accumulated_batches(trainer.world_size, config.trainer.accumulate_grad_batches)
    seconds = step_seconds(parts, threads, every) / every * len(loader) * epochs * share
    return Cost(**cost, seconds=seconds / trainer.world_size)


def step_seconds(parts: CifarCLI, threads: int, every: int) -> float:
    """Seconds of an optimizer step on images of 32x32 pixels, with as many threads as the run gets."""
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
