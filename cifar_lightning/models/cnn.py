"""A convolutional network of stages, each at half the resolution of the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_lightning.models.blocks import ACTIVATIONS, ActivationName, NormName, initialise, norm_2d
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.models.pooling import MaxPoolByTwo
from cifar_lightning.models.whitening import whitening_filters

__all__ = ["CNN", "CNNClassifier"]

PoolingName = Literal["max", "average", "stride"]


class PooledConv2d(nn.Conv2d):
    """A convolution before a pooling by two: computes only what the pooling reads.

    Pooling drops the last of an odd number of rows and columns, so they are never computed. The outputs of the pooling
    are those of a plain convolution, for 11 % fewer operations of the whole `CNN` on images of 32 pixels.

    Args:
        args, options: Those of `nn.Conv2d`, with a padding of half the kernel.
        poolings: This pooling and those after it, which are to keep the centre of the image in the centre; 0 for not.
            The last of them that has a row too many drops the first one, which makes up for those before.
    """

    def __init__(self, *args: Any, poolings: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.poolings = poolings

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W), less one where H or W is odd."""
        if not any(size % 2 for size in x.shape[-2:]):
            return super().forward(x)
        margins = []  # of the columns, then of the rows
        for size, kernel in zip(reversed(x.shape), reversed(self.kernel_size), strict=False):
            margin, odd = kernel // 2, size % 2
            first = int(size % 2**self.poolings == 1)
            margins += [margin - first, margin - odd + first]
        return F.conv2d(F.pad(x, margins), self.weight, self.bias)


class Stage(nn.Module):
    """A convolution that halves the resolution, then `depth - 1` more, with a skip around them when residual.

    The pooling comes right after the first convolution, before its normalisation and activation, which so work on a
    quarter of the pixels: on a CPU that is where the time of a small network goes.
    """

    def __init__(
        self,
        fan_in: int,
        width: int,
        depth: int,
        *,
        kernel_size: int,
        make_norm: Callable[[int], nn.Module],
        make_activation: Callable[[], nn.Module],
        pooling: PoolingName,
        poolings: int,
        residual: bool,
    ) -> None:
        super().__init__()
        pools = {"max": MaxPoolByTwo(), "average": nn.AvgPool2d(2), "stride": nn.Identity()}

        def conv(channels: int, kind: Callable[..., nn.Conv2d] = nn.Conv2d, stride: int = 1) -> nn.Conv2d:
            # A bias before a normalisation would be subtracted again.
            bias = isinstance(make_norm(width), nn.Identity)
            return kind(channels, width, kernel_size, stride, padding=kernel_size // 2, bias=bias)

        def norm_act() -> list[nn.Module]:
            return [make_norm(width), make_activation()]

        pooled = partial(PooledConv2d, poolings=poolings)
        first = conv(fan_in, stride=2) if pooling == "stride" else conv(fan_in, pooled)
        self.down = nn.Sequential(first, pools[pooling], *norm_act())
        self.body = nn.Sequential()
        for _ in range(depth - 1):
            self.body.extend([conv(width), *norm_act()])
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, fan_in, H, W) to (B, width, H / 2, W / 2)."""
        x = self.down(x)
        return x + self.body(x) if self.residual else self.body(x)


class CNN(nn.Module):
    """Stages of convolutions, global pooling and a linear layer to the classes.

    Args:
        widths: Channels of each stage; 32x32 pixels can be halved five times.
        depths: Convolutions in each stage, as many numbers as `widths` has, or one number for all stages.
        kernel_size: Side of every kernel in pixels, odd.
        norm: "batch", "group" or "none".
        activation: "relu", "gelu", "silu", "leaky_relu" or "tanh".
        pooling: How a stage halves the resolution, and how the head pools: "max", "average", or "stride" (strided
            convolutions, average in the head).
        centred: Of an odd number of rows, pooling drops the last, so that the features of 31 pixels are of the first 24
            and what is near them. With this, the last pooling that has a row too many drops the first one, and they are
            of the 24 in the middle. The same for columns. Not with `pooling: stride`.
        residual: Add a skip around the convolutions after the first of each stage.
        dropout: Probability to drop a feature before the linear layer, in [0, 1).
        logit_scale: Factor on the logits. Features that are the maximum over an image are large; a small factor keeps
            the linear layer stable at high learning rates (airbench94 takes 1/9).
        whiten_px: Side in pixels of the patches that a fixed first layer whitens, computed from the training images;
            0 for no such layer.
        whiten_stride: Pixels from one patch to the next, each way: 2 leaves a quarter of them.
        whiten_bias: Train a bias of that layer, from random values. Backward then has to reach it, which
            `model.freeze_epochs` can end.
        dirac: Start each convolution with the identity on as many channels as it can pass on.
        norm_momentum: Weight of the newest batch in the statistics that batch normalisation evaluates with.
        norm_scale: Train the scales of batch normalisation, or leave them at 1.

    Raises:
        ValueError: for shapes that make no network; all problems in one message.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256),
        depths: Sequence[int] | int = 2,
        *,
        kernel_size: int = 3,
        norm: NormName = "batch",
        activation: ActivationName = "gelu",
        pooling: PoolingName = "max",
        centred: bool = False,
        residual: bool = False,
        dropout: float = 0.0,
        logit_scale: float = 0.125,
        whiten_px: int = 0,
        whiten_stride: int = 1,
        whiten_bias: bool = False,
        dirac: bool = False,
        norm_momentum: float = 0.1,
        norm_scale: bool = True,
    ) -> None:
        super().__init__()
        depths = [depths] * len(widths) if isinstance(depths, int) else list(depths)
        several = len(depths) == len(widths) and min(depths, default=0) >= 1
        requirements = {
            f"`model.net.widths` to be 1 to 5 numbers of channels, got {list(widths)}.": (
                1 <= len(widths) <= 5 and min(widths) >= 1
            ),
            f"`model.net.depths` to be {len(widths)} numbers of at least 1 convolution, one for each of "
            f"`model.net.widths` {list(widths)}, got {depths}.": several,
            f"one of `model.net.depths` above 1 for `model.net.residual` to skip, got {depths}.": (
                not (residual and several) or max(depths) > 1
            ),
            f"`model.net.kernel_size` to be an odd number of pixels, got {kernel_size}.": (
                kernel_size >= 1 and kernel_size % 2 == 1
            ),
            "`model.net.pooling` of max or average for `model.net.centred`, got stride.": (
                not (centred and pooling == "stride")
            ),
            f"`model.net.dropout` in [0, 1), got {dropout}.": 0 <= dropout < 1,
            f"`model.net.logit_scale` above 0, got {logit_scale}.": logit_scale > 0,
            f"`model.net.whiten_px` in [0, 5] pixels, got {whiten_px}.": 0 <= whiten_px <= 5,
            f"`model.net.whiten_stride` of at least 1 pixel, got {whiten_stride}.": whiten_stride >= 1,
            "`model.net.whiten_px` above 0 for `model.net.whiten_bias`, got 0.": whiten_px != 0 or not whiten_bias,
            f"`model.net.norm_momentum` in (0, 1], got {norm_momentum}.": 0 < norm_momentum <= 1,
        }
        if problems := [f"Expected {text}" for text, is_met in requirements.items() if not is_met]:
            raise ValueError(" ".join(problems))
        self.activation = type(ACTIVATIONS[activation]())
        self.whiten = None
        fan_in = 3
        if whiten_px:
            # Its weights are not trained: without a bias, backward stops before the largest activations.
            layer = nn.Conv2d(3, 2 * 3 * whiten_px**2, whiten_px, whiten_stride, bias=whiten_bias)
            layer.weight.requires_grad_(False)
            self.whiten = nn.Sequential(layer, ACTIVATIONS[activation]())
            fan_in = layer.out_channels
        make_stage = partial(
            Stage,
            kernel_size=kernel_size,
            make_norm=partial(norm_2d, norm, momentum=norm_momentum, scale=norm_scale),
            make_activation=ACTIVATIONS[activation],
            pooling=pooling,
            residual=residual,
        )
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            self.stages.append(make_stage(fan_in, width, depth, poolings=len(widths) - i if centred else 0))
            fan_in = width
        self.pool = nn.AdaptiveMaxPool2d(1) if pooling == "max" else nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(fan_in, 10, bias=False)  # the classes are balanced: there is nothing for one to learn
        self.logit_scale = logit_scale
        if norm == "none":
            initialise(self)
        if dirac:
            for module in self.stages.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.dirac_(module.weight.data[: module.in_channels])

    def initialise_from(self, images: Tensor) -> None:
        """Whitens the patches of the images (N, 3, 32, 32), when there is a layer for it."""
        if self.whiten is not None:
            layer = self.whiten[0]
            assert isinstance(layer, nn.Conv2d)
            with torch.no_grad():
                layer.weight.copy_(whitening_filters(images, layer.kernel_size[0]))

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to pooled features (B, widths[-1])."""
        if self.whiten is not None:
            images = self.whiten(images)
        for stage in self.stages:
            images = stage(images)
        return self.pool(images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float images (B, 3, 32, 32) to logits (B, 10)."""
        return self.head(self.dropout(self.features(images))) * self.logit_scale

    def layers(self) -> dict[str, nn.Module]:
        """The whitening layer and each convolution with what follows it; their outputs are (B, channels, H, W)."""
        found: dict[str, nn.Module] = {} if self.whiten is None else {"whitening": self.whiten}
        for i, stage in enumerate(self.stages):
            assert isinstance(stage, Stage)
            activations = [stage.down, *(m for m in stage.body if isinstance(m, self.activation))]
            activations[-1] = stage  # with the skip, where there is one
            found |= {f"stage{i + 1}.conv{j + 1}": module for j, module in enumerate(activations)}
        return found

    def first_filters(self) -> Tensor:
        """Return the kernels of the first trained convolution as they see pixels, (widths[0], 3, side, side).

        With a whitening below, both convolutions are composed to one, without the nonlinearity between them: of
        `(kernel_size - 1) * whiten_stride + whiten_px` pixels a side.
        """
        weight = next(layer for layer in self.stages.modules() if isinstance(layer, nn.Conv2d)).weight
        if self.whiten is None:
            return weight
        layer = self.whiten[0]
        assert isinstance(layer, nn.Conv2d)
        return F.conv_transpose2d(weight, layer.weight, stride=layer.stride)

    def fixed_filters(self) -> Tensor | None:
        """Return the kernels of the whitening (6 * whiten_px ** 2, 3, whiten_px, whiten_px), or None without one."""
        return None if self.whiten is None else next(self.whiten.parameters())


class CNNClassifier(ImageClassifier):
    """Trains a convolutional network: local filters shared over the image, in stages of falling resolution."""

    def __init__(self, net: CNN | None = None, **kwargs: Any) -> None:
        super().__init__(CNN() if net is None else net, **kwargs)
