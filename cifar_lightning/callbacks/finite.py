"""Stops a training when its numbers go wrong, before they spoil the weights."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim import Optimizer

from cifar_lightning.analysis.activations import layer_outputs
from cifar_lightning.callbacks.context import as_classifier
from cifar_lightning.data.loader import Batch
from cifar_lightning.models import introspection

__all__ = ["FiniteCheck", "NotFiniteError"]

logger = logging.getLogger(__name__)


class NotFiniteError(ValueError):
    """A loss or a gradient is infinite or no number."""


class FiniteCheck(Callback):
    """Looks for a loss or gradients that are not finite, and ends the training there or leaves the step out.

    One process on a CPU looks at the loss before every step. A GPU would have to wait for it, and several processes for
    each other: they look every few steps, and at the end of an epoch, before there is a checkpoint of it.
    (A scaler of float16 gradients leaves out steps whose gradients overflow by itself: there only the loss counts.)

    Args:
        every_n_steps: Optimizer steps between two looks at the gradients, and where waiting costs at the loss; 0 for
            none at all.
        skip_steps: Optimizer steps that may be left out in a training because their loss or gradients are not finite.
            With any, all are looked at in every step.

    Raises:
        ValueError: for a number below 0.
    """

    def __init__(self, every_n_steps: int = 10, skip_steps: int = 0) -> None:
        if every_n_steps < 0 or skip_steps < 0:
            raise ValueError(
                f"Expected `finite.every_n_steps` and `finite.skip_steps` to be at least 0, got {every_n_steps} and "
                f"{skip_steps}."
            )
        self.every_n_steps = every_n_steps
        self.skip_steps = skip_steps
        self.skipped = 0
        self._loss_was_finite: bool | Tensor = True
        self._batch: Batch | None = None
        self._buffers: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """How many steps were left out."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self.skipped = state_dict["skipped"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Keeps the batch, for a look at what each layer makes of it."""
        self._batch = batch
        if self.skip_steps and batch_idx % trainer.accumulate_grad_batches == 0:
            self._buffers = [buffer.clone() for buffer in as_classifier(pl_module).net.buffers()]

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Looks at the loss, or asks the device to."""
        if self.every_n_steps:
            finite = loss.detach().isfinite()
            # On a CPU that is known at once; a GPU notes it until it is asked.
            self._loss_was_finite = (bool(finite) if loss.device.type == "cpu" else finite) & self._loss_was_finite

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Stops, or leaves the step out."""
        if not self.every_n_steps:
            return
        alone = trainer.world_size == 1
        due = self.skip_steps > 0 or trainer.global_step % self.every_n_steps == 0 or trainer.is_last_batch
        if due or (alone and self._loss_was_finite is False):
            net = as_classifier(pl_module).net
            loss_is_finite, self._loss_was_finite = bool(self._loss_was_finite), True
            scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
            wrong = [] if scaled else not_finite_gradients(net)
            bad = not loss_is_finite or bool(wrong)
            if not alone:  # all stop, or none
                bad = bool(trainer.strategy.reduce_boolean_decision(bad, all=False))
            if bad:
                self._answer(trainer, pl_module, optimizer, loss_is_finite, wrong)

    def _answer(
        self, trainer: Trainer, module: LightningModule, optimizer: Optimizer, loss_is_finite: bool, wrong: list[str]
    ) -> None:
        net, lr = as_classifier(module).net, optimizer.param_groups[0]["lr"]
        where = f"step {trainer.global_step + 1} (epoch {trainer.current_epoch + 1}), learning rate {lr:.4g}"
        if loss_is_finite:
            what = (
                f"gradients of {', '.join(wrong[:3])}{' and more' if len(wrong) > 3 else ''}" if wrong else "gradients"
            )
        else:
            what = f"the loss, {self._first_layer(module)}"
        if self.skipped < self.skip_steps:
            self.skipped += 1
            optimizer.zero_grad(set_to_none=True)  # what has no gradient takes no step
            for buffer, kept in zip(net.buffers(), self._buffers, strict=True):
                buffer.copy_(kept)
            say = rank_zero_only(logger.warning)
            say(f"Left out {where}: not finite is {what}. {self.skipped} of {self.skip_steps} so far.")
            return
        before = f" {self.skipped} steps were left out before." if self.skipped else ""
        raise NotFiniteError(
            f"Expected finite numbers in training, got infinity or NaN in {what}, at {where}.{before} The checkpoints "
            "are as they were. Lower the learning rate, warm up longer, clip gradients with "
            "`trainer.gradient_clip_val`, or let `finite.skip_steps` leave such steps out."
        )

    def _first_layer(self, module: LightningModule) -> str:
        """Where the numbers go wrong on the way to the loss."""
        model = as_classifier(module)
        if spoiled := [name for name, weight in model.net.named_parameters() if not weight.isfinite().all()]:
            return f"whose network has such weights in {spoiled[0]}"
        assert self._batch is not None
        with torch.no_grad():
            layers, images = introspection.layers(model.net), model.normalize(self._batch.images)
            logits, outputs = layer_outputs(model.net, layers, images)
        for name, output in {**outputs, "the logits": logits}.items():
            if not output.isfinite().all():
                return f"first in {name}"
        return "though all layers are finite now"


def not_finite_gradients(net: nn.Module) -> list[str]:
    """Names of the parameters with a gradient that is not finite everywhere, from the pixels on."""
    named = [(name, p.grad) for name, p in net.named_parameters() if p.grad is not None]
    if not named:
        return []
    # A norm is not finite where any number is not: one pass over the memory, and one copy to the host.
    norms = torch.stack(torch._foreach_norm([grad for _, grad in named], ord=math.inf)).cpu()
    return [name for (name, _), fine in zip(named, norms.isfinite().tolist(), strict=True) if not fine]
