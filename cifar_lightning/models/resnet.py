"""Residual networks with the CIFAR stem, after He et al. 2016, "Deep Residual Learning" (arXiv 1512.03385)."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from cifar_lightning.models.blocks import initialise
from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["ResNet", "ResNetClassifier"]

Depth = Literal[18, 20, 32, 44, 56, 110]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution ("option B" of the paper) or takes every second pixel
    and adds channels of zeros, free of parameters ("option A", which the paper uses on CIFAR-10).
    """

    def __init__(self, fan_in: int, width: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.extra_channels = width - fan_in
        self.projection: nn.Module | None = None
        if projection and (stride != 1 or self.extra_channels):
            self.projection = nn.Sequential(nn.Conv2d(fan_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def shortcut(self, x: Tensor) -> Tensor:
        """(B, fan_in, H, W) to (B, width, H / stride, W / stride)."""
        if self.projection is not None:
            return self.projection(x)
        if self.stride == 1 and not self.extra_channels:
            return x
        before = self.extra_channels // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, before, self.extra_channels - before))

    def forward(self, x: Tensor) -> Tensor:
        """(B, fan_in, H, W) to (B, width, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 stem at full resolution, stages of basic blocks, global average pooling and a linear layer.

    Depth 18 is the ImageNet network of four stages (64 to 512 channels, option B) without its strided stem and
    max-pooling; 20 to 110 are the paper's CIFAR networks of three stages (16 to 64 channels, option A).

    Args:
        depth: 18, 20, 32, 44, 56 or 110 layers with weights.

    Raises:
        ValueError: for another depth.
    """

    def __init__(self, depth: Depth = 20) -> None:
        super().__init__()
        if depth not in (18, 20, 32, 44, 56, 110):
            raise ValueError(f"Expected `model.net.depth` to be 18, 20, 32, 44, 56 or 110 layers, got {depth}.")
        widths = (64, 128, 256, 512) if depth == 18 else (16, 32, 64)
        blocks = 2 if depth == 18 else (depth - 2) // 6
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.stages = nn.ModuleList()
        fan_in = widths[0]
        for i, width in enumerate(widths):
            stage = nn.Sequential()
            for j in range(blocks):
                stage.append(BasicBlock(fan_in, width, 2 if i > 0 and j == 0 else 1, projection=depth == 18))
                fan_in = width
            self.stages.append(stage)
        self.head = nn.Linear(fan_in, 10)
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, 32, 32) to pooled features (B, 512) at depth 18, else (B, 64)."""
        x = self.relu(self.norm(self.stem(images)))
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float images (B, 3, 32, 32) to logits (B, 10)."""
        return self.head(self.features(images))

    def layers(self) -> dict[str, nn.Module]:
        """The stem and each block; their outputs are (B, channels, H, W)."""
        found: dict[str, nn.Module] = {"stem": self.relu}
        for i, stage in enumerate(self.stages):
            assert isinstance(stage, nn.Sequential)
            found |= {f"stage{i + 1}.block{j + 1}": block for j, block in enumerate(stage)}
        return found

    def first_filters(self) -> Tensor:
        """Kernels of the stem (64 or 16, 3, 3, 3)."""
        return self.stem.weight


class ResNetClassifier(ImageClassifier):
    """Trains a residual network with the CIFAR stem: the deeper reference."""

    def __init__(self, net: ResNet | None = None, **kwargs: Any) -> None:
        super().__init__(ResNet() if net is None else net, **kwargs)
