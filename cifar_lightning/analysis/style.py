"""The style of all figures: safe for colour-blind readers, and readable at half size."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

__all__ = ["BLUE", "DPI", "GREY", "MARKERS", "ORANGE", "PALETTE", "image_array", "new_figure", "render"]

# Okabe and Ito's palette for colour-blind readers.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
PALETTE = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B", "#7F7F7F", "#B8A300")
MARKERS = "osv^D<>PX*"
"""One marker for each colour, so that a chart does not depend on colours."""
DPI = 100


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure. It is not one of pyplot, which keeps figures in memory until they are closed.

    Args:
        width: in inches.
        height: in inches.
        title: what is shown, of which run and split; wrapped to the width.
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=11, wrap=True)
    return figure


def render(figure: Figure) -> Image.Image:
    """Return a figure as an RGB picture of `DPI` pixels an inch."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])


def image_array(images: Tensor) -> np.ndarray:
    """Return uint8 images (B, 3, H, W) in the layout of matplotlib: (B, H, W, 3), on the CPU."""
    return images.detach().cpu().permute(0, 2, 3, 1).numpy()
