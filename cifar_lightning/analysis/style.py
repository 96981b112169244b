"""One look for all figures: colour-blind safe, and readable at half size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cifar_lightning.files import replacing

__all__ = ["BLUE", "DPI", "GREY", "MARKERS", "ORANGE", "PALETTE", "image_array", "new_figure", "save_figure"]

# Okabe and Ito's palette, which people with the common colour-vision deficiencies can tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
PALETTE = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B", "#7F7F7F", "#B8A300")
MARKERS = "osv^D<>PX*"
"""One marker for each colour, so that a chart does not depend on colours."""
DPI = 100


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure outside pyplot, which would keep it in memory until it is closed.

    Args:
        width: in inches.
        height: in inches.
        title: says what is shown, of which run and split; wrapped to the width.
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=11, wrap=True)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with replacing(path) as file:
        figure.savefig(file, format="png")


def image_array(images: Tensor) -> np.ndarray:
    """uint8 images (B, 3, H, W) as matplotlib wants them: (B, H, W, 3), on the CPU."""
    return images.detach().cpu().permute(0, 2, 3, 1).numpy()
