"""The optimizer and the schedule of a LightningModule: how long they are, and how they start again."""

from __future__ import annotations

import logging
import math
import statistics
import warnings
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from cifar_lightning.models import introspection
from cifar_lightning.optim.groups import parameter_groups
from cifar_lightning.optim.schedule import ScheduleName, lengths, make_scheduler, optimizer_steps

__all__ = ["ScheduledModule"]

logger = logging.getLogger(__name__)


class ScheduledModule(LightningModule):
    """Trains a network by one optimizer, with a schedule that moves at every step and ends with the training.

    The arguments are those of `ImageClassifier`.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable,
        schedule: ScheduleName | type[LRScheduler],
        schedule_args: dict[str, Any],
        warmup_epochs: float,
        cooldown_epochs: float,
        final_lr_ratio: float,
        freeze_epochs: dict[str, float],
    ) -> None:
        super().__init__()
        self.net = net
        self.optimizer = optimizer
        self.schedule = schedule
        self.schedule_args = schedule_args
        self.warmup_epochs = warmup_epochs
        self.cooldown_epochs = cooldown_epochs
        self.final_lr_ratio = final_lr_ratio
        self.freeze_epochs = freeze_epochs
        self._total_steps = self._warmup_steps = self._cooldown_steps = 0
        self.freeze_steps: dict[str, int] = {}
        """Optimizer steps after which parts of the network are no longer trained."""
        self.found_lr: float | None = None
        """Learning rate that `LearningRateFinder` has found."""

    def check_length(self, trainer: Trainer) -> None:
        """Make sure that a schedule that ends with the training has an end.

        Raises:
            ValueError: when the schedule ends with the training, whose length is not limited.
        """
        has_end = self.schedule in ("linear", "cosine") or lengths(self.schedule, self.schedule_args)
        if has_end and trainer.max_epochs == -1 and trainer.max_steps == -1:
            name = self.schedule if isinstance(self.schedule, str) else self.schedule.__name__
            raise ValueError(
                f"Expected `trainer.max_epochs` or `trainer.max_steps` for `model.schedule: {name}`, which "
                "ends with the training, got neither. Set one of them, or take `constant`."
            )

    def trained_networks(self) -> dict[str, float]:
        """Return the attributes that hold a network to train, and the share of each batch that passes through it."""
        return {"net": 1.0}

    @property
    def networks(self) -> list[nn.Module]:
        """The networks that are trained."""
        return [self.get_submodule(name) for name in self.trained_networks()]

    def make_optimizer(self) -> Optimizer:
        """Return a new optimizer over weights, the head and biases of each network that is trained."""
        groups = []
        for net in self.networks:
            groups += parameter_groups(net, introspection.head(net), self.freeze_steps if net is self.net else None)
        return self.optimizer(groups)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Make the optimizer over weights and biases, and the schedule, which acts at every step.

        Raises:
            ValueError: when the schedule does not fit the length of the training.
        """
        self.check_length(self.trainer)
        self.trainer.fit_loop.setup_data()  # Lightning counts the batches of an epoch only where epochs are limited
        limits = [float(self.trainer.max_steps)] if self.trainer.max_steps > 0 else []
        if (epochs := self.trainer.max_epochs) not in (None, -1):
            limits.append(sum(optimizer_steps(self.trainer, epoch) for epoch in range(max(epochs, 1))))
        total = min(limits, default=math.inf)
        self._total_steps = int(total) if math.isfinite(total) else 0  # "constant" does not need it
        self._warmup_steps, self._cooldown_steps = self._steps(self.warmup_epochs), self._steps(self.cooldown_epochs)
        self.freeze_steps = {part: self._steps(epochs) for part, epochs in self.freeze_epochs.items()}
        if self._warmup_steps > self._total_steps > 0 and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_only(logger.warning)(
                f"The warm-up of {self.warmup_epochs:g} epochs is longer than the training: the learning rate never "
                "reaches its peak."
            )
        optimizer = self.make_optimizer()
        scheduler = self._make_scheduler(optimizer)
        if isinstance(scheduler, OneCycleLR) and scheduler.total_steps < self._total_steps:
            raise ValueError(
                f"Expected OneCycleLR with at least the {self._total_steps} steps of the training in "
                f"`model.schedule_args`, got {scheduler.total_steps}. Leave its length out: it is filled in."
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _steps(self, epochs: float) -> int:
        """Return the optimizer steps of some epochs at the start of the training."""
        counts = [optimizer_steps(self.trainer, epoch) for epoch in range(math.ceil(epochs))]
        return round(epochs * statistics.fmean(counts or [0]))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Stop computing the gradients of parts that are no longer trained.

        Where several processes exchange gradients, each waits for all of them: a learning rate of 0 has to do.
        """
        if self.freeze_steps and self.trainer.world_size == 1:
            for group in self.trainer.optimizers[0].param_groups:
                if group.get("freeze_step", math.inf) <= self.trainer.global_step:
                    for parameter in group["params"]:
                        parameter.requires_grad_(False).grad = None

    def _make_scheduler(self, optimizer: Optimizer) -> LRScheduler:
        steps = self._total_steps, self._warmup_steps, self._cooldown_steps
        return make_scheduler(optimizer, self.schedule, *steps, self.final_lr_ratio, self.schedule_args)

    @property
    def lr(self) -> float:
        """Peak learning rate of the training, as `LearningRateFinder` reads and sets it.

        Raises:
            ValueError: when the optimizer has several learning rates.
        """
        if "max_lr" in self.schedule_args:
            raise ValueError(
                "Expected no `max_lr` in `model.schedule_args` with LearningRateFinder, got "
                f"{self.schedule_args['max_lr']}. Leave it out: the learning rate that is found takes its place."
            )
        # OneCycleLR starts from a fraction of its peak.
        rates = {group.get("max_lr", group["initial_lr"]) for group in self.trainer.optimizers[0].param_groups}
        if len(rates) > 1:
            raise ValueError(
                f"Expected `model.optimizer` with one learning rate for LearningRateFinder, got {len(rates)} "
                f"({', '.join(f'{rate:g}' for rate in sorted(rates))}). Take another optimizer, or a sweep over "
                "`model.optimizer.lr`."
            )
        return float(rates.pop())

    @lr.setter
    def lr(self, value: float) -> None:
        self.found_lr = value

    def on_train_start(self) -> None:
        """Make the schedule anew where its peak or its length has changed.

        `LearningRateFinder` sets the learning rate of the first step only, and the checkpoint of a scheduler class
        brings back the length that the training had.
        """
        if self.found_lr is not None:
            self._restart_schedule([self.found_lr] * len(self.trainer.optimizers[0].param_groups))
        total = self._total_steps
        for name in lengths(self.schedule, self.schedule_args):
            if getattr(self.trainer.lr_scheduler_configs[0].scheduler, name, total) != total:
                self._restart_schedule([group["lr"] for group in self.make_optimizer().param_groups])

    def _restart_schedule(self, peaks: list[float]) -> None:
        """Replace the scheduler by a new one with other peaks, at the same step."""
        config, optimizer = self.trainer.lr_scheduler_configs[0], self.trainer.optimizers[0]
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["initial_lr"] = group["lr"] = peak
        steps = config.scheduler.last_epoch
        config.scheduler = self._make_scheduler(optimizer)
        with warnings.catch_warnings(action="ignore"):  # there are no updates between these steps
            for _ in range(steps):
                config.scheduler.step()
