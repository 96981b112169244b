"""A max pooling whose backward pass needs little memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["MaxPoolByTwo"]

IMAGES_AT_ONCE = 50
OPTIONS: tuple[Any, ...] = ([2, 2], [2, 2], [0, 0], [1, 1], False)
"""Kernel, stride, padding, dilation, and whether the size is rounded up."""


class MaxPoolByTwo(nn.MaxPool2d):
    """Max pooling of 2x2 pixels, which in training on a CPU keeps two bytes for each output.

    PyTorch keeps the input, and the place of each maximum in eight bytes. Outputs and gradients are the same to the
    last bit. On a GPU, and where no gradient is asked for, this is `nn.MaxPool2d`.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H // 2, W // 2)."""
        if x.requires_grad and x.device.type == "cpu" and not torch.compiler.is_compiling():
            return _PoolKeepingPlaces.apply(x)
        return super().forward(x)


class _PoolKeepingPlaces(torch.autograd.Function):
    """PyTorch's own pooling of some images at a time, so that its places in eight bytes are never there for all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        is_nhwc = x.is_contiguous(memory_format=torch.channels_last)
        ctx.shape, ctx.memory_format = x.shape, torch.channels_last if is_nhwc else torch.contiguous_format
        (batch, channels, height, width), small = x.shape, x.shape[2] * x.shape[3] <= 2**15
        size = batch, channels, height // 2, width // 2
        pooled = torch.empty(size, dtype=x.dtype, memory_format=ctx.memory_format)
        kept = torch.empty_like(pooled, dtype=torch.int16 if small else torch.int64)
        for inputs, outputs, places in parts(x, pooled, kept):
            indices = torch.empty_like(outputs, dtype=torch.int64)
            torch.ops.aten.max_pool2d_with_indices.out(inputs, *OPTIONS, out=outputs, indices=indices)
            places.copy_(indices)
        ctx.save_for_backward(kept)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (kept,) = ctx.saved_tensors
        whole = torch.empty(ctx.shape, dtype=gradient.dtype, memory_format=ctx.memory_format)
        for inputs, outputs, places in parts(whole, gradient, kept):
            # It reads only shape and strides of the inputs, and their gradient has the same.
            torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
                outputs, inputs, *OPTIONS, places.long(), grad_input=inputs
            )
        return whole


def parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same images of each tensor, some at a time."""
    return zip(*(tensor.split(IMAGES_AT_ONCE) for tensor in tensors), strict=True)
