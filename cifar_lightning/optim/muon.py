"""Muon: momentum whose updates are made orthogonal, for hidden weights; plain SGD for all else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalize"]

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients that lift small singular values fastest and leave all of them within about 0.7 to 1.2 (Jordan 2024)."""


def orthogonalize(matrices: Tensor, steps: int = 3, eps: float = 1e-7) -> Tensor:
    """Brings the singular values of each matrix towards 1, by a Newton-Schulz iteration.

    Each step maps X to (a + b XX' + c (XX')^2) X. All the factors are polynomials of the first Gram matrix and commute,
    so they are multiplied there, on the small side of the matrix, and X itself is touched only at the start and at the
    end: half the work of iterating on X.

    Args:
        matrices: float (..., rows, columns), each a matrix of its own.
        steps: iterations; three do for training.
        eps: keeps a matrix of zeros at zero.

    Returns:
        The same shape and dtype.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x)[..., None, None] + eps)  # the largest singular value is now at most 1
    gram = x @ x.mT
    product: Tensor | None = None
    for step in range(steps):
        factor = b * gram + c * (gram @ gram)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if step + 1 < steps:
            gram = factor @ gram @ factor
    if product is not None:
        x = product @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Orthogonal updates for the group "weights", SGD with Nesterov momentum for "head" and "biases".

    The groups are those of `parameter_groups`; parameters in no named group count as weights. Kernels of convolutions
    are taken as matrices (output channels, rest). Source: airbench94_muon, Jordan 2024,
    github.com/KellerJordan/cifar10-airbench; there the loss is a sum over the batch, here a mean.

    Args:
        params: parameters, or groups of them.
        lr: Learning rate of the hidden weights: the length of a step relative to an orthogonal matrix.
        momentum: Nesterov momentum of the hidden weights, in [0, 1).
        newton_schulz_steps: Iterations that make an update orthogonal.
        newton_schulz_dtype: Numbers that they are computed in: the iteration forgives bfloat16, which is faster where
            the device has units for it.
        normalize: Scale each hidden weight to norm sqrt(outputs) before its step. For layers with a normalisation
            behind them, which makes their scale meaningless.
        head_lr: Learning rate of the weights of the head.
        bias_lr: Learning rate of biases and of scales of normalisations.
        sgd_momentum: Nesterov momentum of head and biases, in [0, 1).
        weight_decay: Fraction of the head and of the biases that a step at the peak of the learning rate takes away,
            before momentum.

    Raises:
        ValueError: for arguments out of range; all problems in one message.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.16,
        momentum: float = 0.7,
        newton_schulz_steps: int = 3,
        newton_schulz_dtype: Literal["float32", "bfloat16"] = "float32",
        normalize: bool = True,
        head_lr: float = 0.9,
        bias_lr: float = 50.0,
        sgd_momentum: float = 0.85,
        weight_decay: float = 0.002,
    ) -> None:
        rates = {"lr": lr, "head_lr": head_lr, "bias_lr": bias_lr, "weight_decay": weight_decay}
        problems = [f"`{name}` at least 0, got {value}" for name, value in rates.items() if not value >= 0]
        for name, value in (("momentum", momentum), ("sgd_momentum", sgd_momentum)):
            if not 0 <= value < 1:
                problems.append(f"`{name}` in [0, 1), got {value}")
        if newton_schulz_steps < 1:
            problems.append(f"`newton_schulz_steps` at least 1, got {newton_schulz_steps}")
        if newton_schulz_dtype not in ("float32", "bfloat16"):
            problems.append(f"`newton_schulz_dtype` float32 or bfloat16, got {newton_schulz_dtype}")
        if problems:
            raise ValueError(f"Expected {'; '.join(problems)}")
        peak = {"weights": lr, "head": head_lr, "biases": bias_lr}
        groups = list(params)
        if not groups or not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        groups = [{"name": "weights", **group} for group in groups]
        # The decay of head and biases is given for a step; SGD multiplies it by the learning rate, so it is divided.
        groups = [
            {**group, "lr": peak[group["name"]], "weight_decay": weight_decay / max(peak[group["name"]], 1e-12)}
            for group in groups
        ]
        self.newton_schulz_steps = newton_schulz_steps
        self.newton_schulz_dtype = getattr(torch, newton_schulz_dtype)
        self.normalize = normalize
        self.momentum = {"weights": momentum, "head": sgd_momentum, "biases": sgd_momentum}
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all parameters that have a gradient.

        Args:
            closure: computes the loss and the gradients anew; None when they are there.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None and group["lr"]]
            if group["name"] == "weights":
                self._orthogonal_step(trained, group["lr"])
            else:
                self._sgd_step(trained, group["lr"], group["weight_decay"], self.momentum[group["name"]])
        return loss

    def _direction(self, parameter: Tensor, slope: Tensor, momentum: float) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"]
        buffer.mul_(momentum).add_(slope)
        return slope.add(buffer, alpha=momentum)

    def _orthogonal_step(self, parameters: list[Tensor], lr: float) -> None:
        by_shape = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        for shape, alike in by_shape.items():
            directions = [self._direction(p, gradient(p), self.momentum["weights"]).flatten(1) for p in alike]
            updates = orthogonalize(torch.stack(directions).to(self.newton_schulz_dtype), self.newton_schulz_steps)
            for parameter, update in zip(alike, updates, strict=True):
                if self.normalize:
                    parameter.mul_(shape[0] ** 0.5 / parameter.norm())
                parameter.add_(update.view(shape).to(parameter.dtype), alpha=-lr)

    def _sgd_step(self, parameters: list[Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        for parameter in parameters:
            decayed = gradient(parameter).add(parameter, alpha=weight_decay)
            parameter.add_(self._direction(parameter, decayed, momentum), alpha=-lr)


def gradient(parameter: Tensor) -> Tensor:
    """The gradient of a parameter that has one."""
    assert parameter.grad is not None
    return parameter.grad
