"""What is wrong with the arguments of a model, and with what its network and its loss return."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor, nn

from cifar_lightning.models import introspection
from cifar_lightning.optim.schedule import ScheduleName, make_scheduler

if TYPE_CHECKING:
    from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["argument_problems", "not_a_loss", "not_logits"]


def argument_problems(model: ImageClassifier) -> list[str]:
    """Return what is wrong with the arguments of a model; empty when nothing is."""
    problems = loss_problems(model)
    if not 0 <= model.label_smoothing < 1:
        problems.append(f"Expected `model.label_smoothing` in [0, 1), got {model.label_smoothing}.")
    if not (model.temperature > 0 and math.isfinite(model.temperature)):
        problems.append(f"Expected `model.temperature` above 0, got {model.temperature}.")
    for name in ("warmup_epochs", "cooldown_epochs"):
        if not (getattr(model, name) >= 0 and math.isfinite(getattr(model, name))):
            problems.append(f"Expected `model.{name}` to be at least 0 epochs, got {getattr(model, name)}.")
    if not 0 <= model.final_lr_ratio <= 1:
        problems.append(f"Expected `model.final_lr_ratio` in [0, 1], got {model.final_lr_ratio}.")
    return problems + freeze_problems(model) + schedule_problems(model)


def freeze_problems(model: ImageClassifier) -> list[str]:
    """Return what is wrong with the parts that are no longer trained from some epoch on."""
    problems = []
    parts = [name for name, module in model.net.named_modules() if name and any(True for _ in module.parameters())]
    for part, epoch in model.freeze_epochs.items():
        if part not in parts:
            problems.append(
                "Expected `model.freeze_epochs` to name parts of the network, of "
                f"{', '.join(parts[:5])} and others, got {part}."
            )
        if not (epoch > 0 and math.isfinite(epoch)):
            problems.append(f"Expected an epoch above 0 for {part} in `model.freeze_epochs`, got {epoch}.")
    return problems


def loss_problems(model: ImageClassifier) -> list[str]:
    """Return what is wrong with the loss."""
    if not isinstance(model.loss, nn.Module):
        return []
    problems = []
    if model.label_smoothing:
        problems.append(
            f"Expected `model.label_smoothing` 0 with `model.loss`, got {model.label_smoothing}. Give the loss an "
            "argument of its own."
        )
    if problem := not_a_loss(model.loss):
        problems.append(f"Expected `model.loss` to turn logits (B, 10) and labels (B,) into one number, got {problem}.")
    return problems


def schedule_problems(model: ImageClassifier) -> list[str]:
    """Return what is wrong with the optimizer and the schedule, which check their own arguments."""
    problems = []
    schedule, names = model.schedule, get_args(ScheduleName)
    if isinstance(schedule, str) and schedule not in names:
        problems.append(
            f"Expected `model.schedule` to be one of {', '.join(names)}, or a scheduler class, got {schedule}."
        )
    if isinstance(schedule, str) and model.schedule_args:
        problems.append(f"Expected `model.schedule` to be a class for `model.schedule_args`, got {schedule}.")
    by_name = {
        name: getattr(model, name) for name in ("warmup_epochs", "cooldown_epochs", "final_lr_ratio", "freeze_epochs")
    }
    if not isinstance(schedule, str) and any(by_name.values()):
        set_ones = {name: value for name, value in by_name.items() if value}
        problems.append(
            f"Expected no {', '.join(f'`model.{name}`' for name in set_ones)} with the class {schedule.__name__} for "
            f"`model.schedule`, got {', '.join(map(str, set_ones.values()))}. Use `model.schedule_args`."
        )
    try:
        optimizer = model.optimizer([nn.Parameter(torch.zeros(2, 2))])
    except (TypeError, ValueError) as error:
        return [*problems, f"Expected valid arguments in `model.optimizer`, got: {error}."]
    try:
        make_scheduler(optimizer, schedule, 1000, 0, 0, 0.0, model.schedule_args)
    except ValueError as error:
        problems.append(str(error))
    return problems


def not_a_loss(loss: nn.Module) -> str:
    """Return what a loss returns or raises for two images in place of one number; empty when nothing is wrong."""
    try:
        with introspection.undisturbed(loss), warnings.catch_warnings(action="ignore"):
            value = loss(torch.linspace(-1, 1, 20).view(2, 10), torch.tensor([3, 7]))
    except Exception as error:  # whatever a loss raises
        reason = (str(error).strip().splitlines() or ["no message"])[0].rstrip(".")
        return f"{type(error).__name__}: {reason}"
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"the shape {tuple(value.shape)}" if value.ndim else ""


def not_logits(value: object) -> str:
    """Return what is wrong with the logits (2, 10) of two images, and what to do; empty when nothing is."""
    if not isinstance(value, Tensor):
        return f"{type(value).__name__}. Return the logits alone."
    if value.shape != (2, 10):
        return f"{tuple(value.shape)}. Set its number of classes to 10, such as `model.net.num_classes: 10`."
    return "" if value.isfinite().all() else "values that are not finite. Look at its initial weights."
