"""What Lightning costs: `fit` as configured against a bare loop over the same parts."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.commands import PROGRAM, SEES_BENCHMARKS, run
from cifar_lightning.callbacks.memory import keep_freed_memory
from cifar_lightning.cli.training import CifarCLI
from cifar_lightning.data.loader import Batch, stretch_over_epochs
from cifar_lightning.models import SelectiveClassifier
from cifar_lightning.optim.schedule import make_scheduler
from cifar_lightning.runs import Run

__all__ = ["bare_loop", "bench_overhead"]


def bare_loop(args: list[str]) -> float:
    """Trains as `fit` with these arguments does, in a plain PyTorch loop: no metrics, no log and no checkpoints.

    Args:
        args: the command line of `fit`; one device.

    Returns:
        Seconds from the first batch to the end of the last step.
    """
    cli = CifarCLI([*args, "--trainer.fast_dev_run=1"])  # which makes no folder
    model, data, trainer = cli.model, cli.datamodule, cli.config.trainer
    device, precision = cli.trainer.strategy.root_device, cli.trainer.precision_plugin
    data.trainer = cli.trainer  # whose accumulated batches follow from the step
    data.setup("fit")
    if device.type == "cpu":
        keep_freed_memory()
    model.to(device).train()
    loader = data.train_dataloader()
    loader.sizes = tuple(stretch_over_epochs(data.image_sizes, trainer.max_epochs))
    model.initialise_from(loader.images)
    if model.compile_net:
        for net in model.networks:
            net.compile()
    every, epochs = cli.trainer.accumulate_grad_batches, trainer.max_epochs
    steps_per_epoch = -(-len(loader) // every)
    lengths = [round(part * steps_per_epoch) for part in (epochs, model.warmup_epochs, model.cooldown_epochs)]
    model.freeze_steps = {part: round(end * steps_per_epoch) for part, end in model.freeze_epochs.items()}
    optimizer = model.make_optimizer()
    schedule = make_scheduler(optimizer, model.schedule, *lengths, model.final_lr_ratio, model.schedule_args)
    freezing, step = [group for group in optimizer.param_groups if "freeze_step" in group], 0
    started = time.perf_counter()
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for index, batch in enumerate(loader):
            batch, loss = Batch(*(part.to(device) for part in batch)), 0.0
            with precision.forward_context():
                if isinstance(model, SelectiveClassifier):
                    batch, loss = model.select(batch)
                loss += F.cross_entropy(model(batch.images), batch.labels, label_smoothing=model.label_smoothing)
            (loss * loader.weight(index) / every).backward()
            if (index + 1) % every == 0 or index + 1 == len(loader):
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                step += 1
                for parameter in (p for group in freezing if group["freeze_step"] == step for p in group["params"]):
                    parameter.requires_grad_(False)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def bench_overhead(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of `fit` and of a bare loop over the same net, data, optimizer and schedule, in turn."""
    # No validation in either: what it costs is no overhead. Everything else is as the recipe says.
    options = ["--config", args.config, "--data.val_size=0", f"--trainer.max_epochs={args.epochs}", *args.options]
    times: dict[str, list[float]] = {"fit": [], "bare loop": []}
    with tempfile.TemporaryDirectory() as folder:

        def fit(index: int) -> float:
            place = ["--save_dir", folder, "--name", "overhead", "--version", str(index)]
            run([*PROGRAM, "fit", *options, *place, "--trainer.enable_progress_bar=false"])
            return float(Run(Path(folder) / "overhead" / str(index)).result["fit"]["seconds"])

        def bare(index: int) -> float:
            child = [sys.executable, "-m", "benchmarks.overhead", "fit", *options]
            return float(json.loads(run(child, SEES_BENCHMARKS).splitlines()[-1]))

        for index in range(args.rounds):
            # Who comes first in turn as well: a machine that grows warm slows down the second.
            for name, work in [("fit", fit), ("bare loop", bare)][:: 1 if index % 2 else -1]:
                times[name].append(work(index))
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    print(f"{'training loop':12} {'seconds, median':>16} {'lowest':>10} {'highest':>10}")
    for name, values in times.items():
        print(f"{name:12} {statistics.median(values):16.2f} {min(values):10.2f} {max(values):10.2f}")
    print(f"fit / bare loop in each of {args.rounds} rounds: {', '.join(f'{ratio:.3f}' for ratio in ratios)}")
    return {"options": options, "seconds": times, "ratios": ratios, "median_ratio": statistics.median(ratios)}


if __name__ == "__main__":
    print(json.dumps(bare_loop(sys.argv[1:])))
