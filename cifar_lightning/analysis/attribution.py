"""Where a network looks: the gradient at the pixels, and Grad-CAM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["grad_cam", "saliency"]


def saliency(net: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return how strongly each pixel changes the logit of a class.

    Simonyan, Vedaldi and Zisserman 2013 (arXiv 1312.6034).

    Args:
        net: from images to logits (B, C); in eval mode, so that the images are independent.
        images: float (B, 3, H, W), the input of the network.
        targets: int64 (B,), the class to explain for each image.

    Returns:
        float (B, H, W): the largest magnitude of the gradient over the three channels.
    """
    images = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        chosen = net(images).gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, images)
    return gradient.abs().amax(1)


def grad_cam(net: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return the positive part of the feature maps weighted by the mean gradient of a class: Grad-CAM.

    Selvaraju et al. 2017 (arXiv 1610.02391).

    Args:
        net: from images to logits (B, C), in eval mode.
        layer: a module of the network whose output is (B, channels, h, w).
        images: float (B, 3, H, W), the input of the network.
        targets: int64 (B,), the class to explain for each image.

    Returns:
        float (B, H, W) in [0, 1], scaled to a maximum of 1 per image; all 0 for an image without a positive part.
    """
    kept: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        with torch.enable_grad():
            # The pixels need a gradient where no weight below the layer has one.
            chosen = net(images.detach().clone().requires_grad_()).gather(1, targets[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, kept[0])
    finally:
        hook.remove()
    maps = kept[0].detach()
    cam = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    cam = F.interpolate(cam, size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return cam / cam.amax((1, 2), keepdim=True).clamp(min=torch.finfo(cam.dtype).tiny)
