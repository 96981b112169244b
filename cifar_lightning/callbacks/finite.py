"""Stop a training, or skip steps, when the loss or gradients are not finite."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim import Optimizer

from cifar_lightning.analysis.activations import layer_outputs
from cifar_lightning.data.loader import Batch
from cifar_lightning.models import introspection
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.private import foreach_norm

__all__ = ["FiniteCheck", "NotFiniteError"]

logger = logging.getLogger(__name__)


class NotFiniteError(ValueError):
    """The loss or a gradient is infinite or NaN."""


class FiniteCheck(Callback):
    """Check that the loss and the gradients are finite; end the training or skip the step where they are not.

    One process on a CPU checks the loss before every step. A GPU would have to wait for it, and several processes for
    each other: they check every few steps, and in the last step of an epoch, before its checkpoint.
    (The scaler of float16 gradients skips steps whose gradients overflow: with it, only the loss is checked.)

    Args:
        every_n_steps: Optimizer steps between two checks of the gradients, and of the loss on a GPU or with several
            processes; 0 for no checks.
        skip_steps: Largest number of optimizer steps of a training to skip because their loss or gradients are not
            finite. If it is above 0, every step is checked.

    Raises:
        ValueError: If a number is below 0.
    """

    def __init__(self, every_n_steps: int = 10, skip_steps: int = 0) -> None:
        if every_n_steps < 0 or skip_steps < 0:
            raise ValueError(
                f"Expected `finite.every_n_steps` and `finite.skip_steps` to be at least 0, got {every_n_steps} and "
                f"{skip_steps}."
            )
        self.every_n_steps = every_n_steps
        self.skip_steps = skip_steps
        self.skipped_steps = 0
        self._loss_was_finite: bool | Tensor = True
        self._batch: Batch | None = None
        self._buffers: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the number of skipped steps."""
        return {"skipped": self.skipped_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self.skipped_steps = state_dict["skipped"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: ImageClassifier, batch: Batch, batch_idx: int) -> None:
        """Keep the batch, to find the first layer whose outputs are not finite."""
        self._batch = batch
        if self.skip_steps and batch_idx % trainer.accumulate_grad_batches == 0:
            self._buffers = [buffer.clone() for net in pl_module.networks for buffer in net.buffers()]

    def on_before_backward(self, trainer: Trainer, pl_module: ImageClassifier, loss: Tensor) -> None:
        """Check the loss."""
        if self.every_n_steps:
            finite = loss.detach().isfinite()
            # On a GPU this stays a tensor until it is needed, so that nothing waits for the device.
            self._loss_was_finite = (bool(finite) if loss.device.type == "cpu" else finite) & self._loss_was_finite

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: ImageClassifier, optimizer: Optimizer) -> None:
        """Check the gradients; end the training or skip the step."""
        if not self.every_n_steps:
            return
        alone = trainer.world_size == 1
        due = self.skip_steps > 0 or trainer.global_step % self.every_n_steps == 0 or trainer.is_last_batch
        if due or (alone and self._loss_was_finite is False):
            loss_is_finite, self._loss_was_finite = bool(self._loss_was_finite), True
            scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
            wrong = [] if scaled else [name for net in pl_module.networks for name in not_finite_gradients(net)]
            bad = not loss_is_finite or bool(wrong)
            if not alone:  # all processes do the same
                bad = bool(trainer.strategy.reduce_boolean_decision(bad, all=False))
            if bad:
                self._skip_or_stop(trainer, pl_module, optimizer, loss_is_finite, wrong)

    def _skip_or_stop(
        self, trainer: Trainer, module: ImageClassifier, optimizer: Optimizer, loss_is_finite: bool, wrong: list[str]
    ) -> None:
        lr = optimizer.param_groups[0]["lr"]
        where = f"step {trainer.global_step + 1} (epoch {trainer.current_epoch + 1}), learning rate {lr:.4g}"
        if loss_is_finite:
            what = (
                f"gradients of {', '.join(wrong[:3])}{' and more' if len(wrong) > 3 else ''}" if wrong else "gradients"
            )
        else:
            what = f"the loss, {self._first_layer(module)}"
        if self.skipped_steps < self.skip_steps:
            self.skipped_steps += 1
            optimizer.zero_grad(set_to_none=True)  # parameters without a gradient take no step
            buffers = [buffer for net in module.networks for buffer in net.buffers()]
            for buffer, kept in zip(buffers, self._buffers, strict=True):
                buffer.copy_(kept)
            say = rank_zero_only(logger.warning)
            say(f"Skipped {where}: not finite: {what}. {self.skipped_steps} of {self.skip_steps} steps skipped so far.")
            return
        before = f" {self.skipped_steps} steps were skipped before." if self.skipped_steps else ""
        raise NotFiniteError(
            f"Expected finite numbers in training, got infinity or NaN in {what}, at {where}.{before} The checkpoints "
            "are unchanged. Lower the learning rate, warm up longer, clip gradients with "
            "`trainer.gradient_clip_val`, or skip such steps with `finite.skip_steps`."
        )

    def _first_layer(self, module: ImageClassifier) -> str:
        """Return where the first number that is not finite is, on the way to the loss."""
        assert self._batch is not None
        images = module.normalize(self._batch.images)
        for net in module.networks:
            if spoiled := [name for name, weight in net.named_parameters() if not weight.isfinite().all()]:
                return f"with such weights in {spoiled[0]}"
            with torch.no_grad():
                logits, outputs = layer_outputs(net, introspection.layers(net), images)
            for name, output in {**outputs, "the logits": logits}.items():
                if not output.isfinite().all():
                    return f"first in {name}"
        return "though all layers are finite now"


def not_finite_gradients(net: nn.Module) -> list[str]:
    """Return the names of the parameters whose gradients are not all finite."""
    named = [(name, p.grad) for name, p in net.named_parameters() if p.grad is not None]
    if not named:
        return []
    # A norm is not finite where any number is not: one pass over the memory, and one copy to the host.
    norms = torch.stack(foreach_norm([grad for _, grad in named], math.inf)).cpu()
    return [name for (name, _), fine in zip(named, norms.isfinite().tolist(), strict=True) if not fine]
