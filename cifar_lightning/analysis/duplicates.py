"""Near duplicates: pairs of images that show the same thing, found by the features of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lightning.precision import has_bfloat16

__all__ = ["Pairs", "near_duplicates"]

NEIGHBOURS = 10
"""Partners of each image that are considered."""
LOCAL = 5
"""Number of neighbours whose mean cosine is the usual one of an image. The nearest is left out."""
BLOCK = 1000


@dataclass(frozen=True)
class Pairs:
    """Pairs of images, the likeliest duplicates first.

    Attributes:
        first: int64 (P,), index of an image.
        second: int64 (P,), index of its partner.
        score: float32 (P,), at most 1, by which they are ranked.
        cosine: float32 (P,), of their features, in [-1, 1].
        loneliness: float32 (N,), for each image 1 minus the mean cosine to its neighbours: large for odd images.
    """

    first: Tensor
    second: Tensor
    score: Tensor
    cosine: Tensor
    loneliness: Tensor

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.first)


def near_duplicates(features: Tensor, mirrored: Tensor, others: Tensor | None = None) -> Pairs:
    """Rank pairs of images by the similarity of their features.

    Barz and Denzler 2020 ("Do we train on test data?") rank by the cosine, in which every two planes in a clear sky are
    duplicates. The score here compares the distance of a pair with the usual distance of both images to their next
    neighbours: 1 for the same features, 0 for the usual distance. (CSLS, Conneau et al. 2018, uses the same means.)

    Args:
        features: float (N, F).
        mirrored: float (N, F), the features of the same images mirrored left to right.
        others: float (M, F), of the images to search for partners; None for the same images.

    Returns:
        Each image with its ten nearest others. Without `others` each pair once, the lower index first.
    """
    itself = others is None
    centre = (features if others is None else others).mean(0)
    views = [F.normalize(part - centre, dim=1) for part in (features, mirrored)]
    theirs = views[0] if others is None else F.normalize(others - centre, dim=1)
    candidates, their_candidates = rough_neighbours(views, theirs, itself)

    kept = min(NEIGHBOURS, len(theirs) - itself)
    near, order = torch.maximum(*(dot(view, theirs, candidates) for view in views)).topk(kept)
    index = candidates.gather(1, order)
    common = near[:, 1 : 1 + LOCAL].mean(1) if kept > 1 else torch.zeros(len(near))
    known = min(LOCAL, len(near) - 1)
    if itself:
        their_common = common
    elif known:
        theirs_near = torch.maximum(*(dot(theirs, view, their_candidates) for view in views)).topk(1 + known).values
        their_common = theirs_near[:, 1:].mean(1)
    else:
        their_common = torch.zeros(len(theirs))
    first, second, cosine = torch.arange(len(near)).repeat_interleave(kept), index.flatten(), near.flatten()
    if itself:
        pair = torch.stack([torch.minimum(first, second), torch.maximum(first, second)])
        keys, back = (pair[0] * len(theirs) + pair[1]).unique(return_inverse=True)
        cosine = torch.full((len(keys),), -1.0).scatter_reduce(0, back, cosine, "amax")
        first, second = keys // len(theirs), keys % len(theirs)
    usual = (common[first] + their_common[second]) / 2
    score = 1 - (1 - cosine) / (1 - usual).clamp(min=1e-4)
    order = score.argsort(descending=True, stable=True)
    return Pairs(first[order], second[order], score[order], cosine[order], 1 - common)


def rough_neighbours(views: Sequence[Tensor], theirs: Tensor, itself: bool) -> tuple[Tensor, Tensor]:
    """Return twice as many neighbours as are needed, by cosines in bfloat16 where the device has units for it.

    Args:
        views: unit vectors (N, F) of the images and of their mirror images.
        theirs: unit vectors (M, F) of the others.
        itself: whether the others are the same images.

    Returns:
        For each image the indices of others, int64 (N, K), and for each of the others indices of images, int64 (M, L),
        none if they are the same.
    """
    fast = torch.bfloat16 if has_bfloat16(theirs.device.type) else theirs.dtype
    fast_views, fast_theirs = [view.to(fast) for view in views], theirs.to(fast)
    found = []
    best = torch.full((len(theirs), 0 if itself else 2 * (1 + LOCAL)), -2.0)
    best_index = torch.zeros_like(best, dtype=torch.long)
    for start in range(0, len(views[0]), BLOCK):
        rows = slice(start, start + BLOCK)
        cosine = torch.maximum(*(view[rows] @ fast_theirs.T for view in fast_views)).float()
        if itself:  # an image that is its own mirror image is no duplicate
            own = torch.arange(len(cosine))
            cosine[own, start + own] = -2.0
        else:
            values, index = cosine.T.topk(min(best.shape[1], len(cosine)))
            best, place = torch.cat([best, values], 1).topk(best.shape[1])
            best_index = torch.cat([best_index, start + index], 1).gather(1, place)
        found.append(cosine.topk(min(2 * NEIGHBOURS, len(theirs) - itself)).indices)
    return torch.cat(found), best_index[:, : len(views[0])]


def dot(rows: Tensor, others: Tensor, index: Tensor) -> Tensor:
    """Return the products (N, K) of rows (N, F) with those of the others (M, F) that an index (N, K) names."""
    parts = zip(rows.split(BLOCK), index.split(BLOCK), strict=True)
    return torch.cat([torch.einsum("nf,nkf->nk", part, others[chosen]) for part, chosen in parts])
