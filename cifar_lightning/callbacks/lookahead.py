"""Averages of the weights along the training."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

__all__ = ["Lookahead"]


class Lookahead(Callback):
    """Average the weights every few steps, and go on from the average (Zhang et al. 2019, arXiv 1907.08610).

    The slow weights move by a share of the way to the weights of the training, which then start from there. With
    `last_epochs`, this begins near the end, as in Fulcrum's record for CIFAR-10 (2026): with a learning rate that does
    not fall to zero, the average takes the noise out. Statistics of batch normalisation are averaged as well.

    Args:
        every_n_steps: Optimizer steps between two averages, counted from the end, so that the last step is one.
        alpha: Share of the way from the slow weights to those of the training, in (0, 1].
        last_epochs: Epochs at the end in which averages are taken; a fraction is allowed. Default: all.

    Raises:
        ValueError: for arguments out of range; all problems in one message.
    """

    def __init__(self, every_n_steps: int = 5, alpha: float = 0.5, last_epochs: float | None = None) -> None:
        problems = []
        if every_n_steps < 1:
            problems.append(f"`every_n_steps` of Lookahead to be at least 1, got {every_n_steps}.")
        if not 0 < alpha <= 1:
            problems.append(f"`alpha` of Lookahead in (0, 1], got {alpha}.")
        if last_epochs is not None and last_epochs <= 0:
            problems.append(f"`last_epochs` of Lookahead above 0 or null, got {last_epochs}.")
        if problems:
            raise ValueError(" ".join(f"Expected {problem}" for problem in problems))
        self.every_n_steps = every_n_steps
        self.alpha = alpha
        self.last_epochs = last_epochs
        self._slow: list[Tensor] = []
        self._first = self._total = self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the steps at which averages are taken.

        Raises:
            ValueError: when the training has no end that they could be counted from.
        """
        total = trainer.estimated_stepping_batches
        if not 0 < total < float("inf"):
            raise ValueError("Expected `trainer.max_epochs` or `trainer.max_steps` for Lookahead, got neither.")
        self._total = int(total)
        share = 1 if self.last_epochs is None else self.last_epochs / (trainer.max_epochs or 1)
        self._first = max(0, self._total - round(share * self._total))
        self._step = trainer.global_step
        self._slow = [slow.to(pl_module.device) for slow in self._slow]

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take an average after the steps where one is due; keep the first weights."""
        step = trainer.global_step
        if step == self._step:
            return  # a batch that is accumulated
        self._step = step
        if step < self._first or (self._total - step) % self.every_n_steps:
            return
        fast = averaged(pl_module)
        if not self._slow:
            self._slow = [value.clone() for value in fast]
        for slow, value in zip(self._slow, fast, strict=True):
            value.copy_(slow.lerp_(value, self.alpha))

    def state_dict(self) -> dict[str, Any]:
        """Return the slow weights."""
        return {"slow": self._slow}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the slow weights of a checkpoint."""
        self._slow = state_dict["slow"]


def averaged(module: LightningModule) -> list[Tensor]:
    """Return the parameters and statistics of a module, which are averaged in place; counters are not."""
    return [value for value in module.state_dict().values() if value.is_floating_point()]
