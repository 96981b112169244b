"""Train a network on the hardest images alone, which a small network finds."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from cifar_lightning.data.loader import Batch
from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["SelectiveClassifier"]


class SelectiveClassifier(ImageClassifier):
    """Trains `net` on the hardest images of each batch: those with the largest loss of a small network, the proxy.

    Both are trained together, on the images selected. The forward pass of a small network costs less than the training
    of a large one on images that it would learn little from (selection via proxy, Coleman et al. 2020, arXiv
    1906.11829; for CIFAR-10, Jordan 2024, arXiv 2404.00498). Only `net` is evaluated, and the training metrics are
    those of the images selected.

    Args:
        net: As in `ImageClassifier`.
        proxy: A small network of the same kind. Its loss is the cross-entropy with `label_smoothing`.
        share: Share of the images of each batch that are selected, in (0, 1].
        kwargs: The other arguments of `ImageClassifier`; the optimizer trains both networks.

    Raises:
        ValueError: for arguments out of range.
    """

    def __init__(self, net: nn.Module, proxy: nn.Module, share: float = 0.5, **kwargs: Any) -> None:
        super().__init__(net, **kwargs)
        if not 0 < share <= 1:
            raise ValueError(f"Expected `model.share` in (0, 1], got {share}.")
        self.proxy = proxy.to(memory_format=self.memory_format)
        self.share = share

    def trained_networks(self) -> dict[str, float]:
        """Return both networks: the proxy sees all images."""
        return {"net": self.share, "proxy": 1.0}

    def select(self, batch: Batch) -> tuple[Batch, Tensor]:
        """Return the hardest images of a batch, and the loss of the proxy on them."""
        logits = self.proxy(self.normalize(batch.images))
        losses = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing, reduction="none")
        hardest = losses.topk(max(1, round(self.share * len(losses)))).indices
        return Batch(*(part[hardest] for part in batch)), losses[hardest].mean()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of both networks on the hardest images of a batch."""
        selected, loss = self.select(batch)
        return loss + super().training_step(selected, batch_idx)
