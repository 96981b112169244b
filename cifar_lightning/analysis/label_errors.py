"""Labels that are likely to be wrong, by confident learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

__all__ = ["issue_finder", "suspects"]


def suspects(labels: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, int]:
    """Rank images by how likely their labels are wrong (Northcutt et al. 2021, "Confident Learning").

    Needs cleanlab, the extra `audit`.

    Args:
        labels: int64 (N,).
        probabilities: float (N, C), of networks that were not trained on these images.

    Returns:
        The indices of all images, int64 (N,), the likeliest errors first; their margins, float32 (N,): the probability
        of the label less that of the likeliest other class, in [-1, 1]; and the number of errors that confident
        learning estimates.

    Raises:
        ValueError: Without cleanlab.
    """
    find_issues = issue_finder()
    likely = probabilities.double()
    likely = likely / likely.sum(1, keepdim=True)
    own = probabilities.gather(1, labels[:, None])[:, 0]
    margins = own - probabilities.scatter(1, labels[:, None], -1.0).amax(1)
    estimated = int(find_issues(labels.numpy(), likely.numpy(), n_jobs=1).sum())
    order = margins.argsort(stable=True)
    return order, margins[order], estimated


def issue_finder() -> Callable[..., Any]:
    """Return cleanlab's function that estimates which labels are wrong.

    Raises:
        ValueError: Without cleanlab.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise ValueError(
            "Expected cleanlab, which looks for label errors, got none. Install it with `pip install "
            "'cifar-lightning[audit]'`."
        ) from error
    return find_label_issues
