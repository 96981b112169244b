"""Test images under corruptions: of the published files of CIFAR-10-C, or made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifar_lightning.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from cifar_lightning.data.image_filters import SIDE
from cifar_lightning.data.split import ImageSet

__all__ = ["CorruptedImages"]

FOLDER = "CIFAR-10-C"
"""Of the published files, in the data root: 10,000 test images in the official order, for each severity in turn."""
OFFICIAL_COUNT = 10_000


class CorruptedImages:
    """Test images under corruptions: those of the published files where the data root has them, made otherwise.

    Args:
        test: The test images.
        rows: Which of them, int64 (N,).
        root: The data root.

    Attributes:
        names: The corruptions.
        published: Those of them that are read from files.

    Raises:
        ValueError: If published files lie there, and are not of these test images.
    """

    def __init__(self, test: ImageSet, rows: Tensor, root: Path) -> None:
        self._images, self._rows = test.images[rows], rows
        files = {path.stem: path for path in (root / FOLDER).glob("*.npy")}
        self._files = {name: path for name, path in files.items() if name in (*CORRUPTIONS, "frost")}
        self.names = [*CORRUPTIONS, *(["frost"] if "frost" in self._files else [])]
        self.published = [name for name in self.names if name in self._files]
        if self._files:
            path = root / FOLDER / "labels.npy"
            labels = read_array(path, (len(SEVERITIES) * OFFICIAL_COUNT,))
            if not np.array_equal(labels[: len(test)], test.labels.cpu().numpy()):
                raise ValueError(
                    f"Expected the labels of the test images in {path}, got others. The published files are in the "
                    f"order of the official batches, and class folders have another: move {FOLDER} out of the data "
                    "root, and the corruptions are made."
                )

    def get(self, name: str, severity: int) -> Tensor:
        """Return the images under a corruption of a severity from 1 to 5, uint8 (N, 3, 32, 32).

        Raises:
            ValueError: If the published file is damaged.
        """
        if name not in self._files:
            return corrupt(self._images, name, severity)
        images = read_array(self._files[name], (len(SEVERITIES) * OFFICIAL_COUNT, SIDE, SIDE, 3))
        chosen = images[(severity - 1) * OFFICIAL_COUNT + self._rows.cpu().numpy()]
        return torch.from_numpy(chosen).permute(0, 3, 1, 2).contiguous().to(self._images.device)


def read_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the numbers of a file of NumPy, read as they are needed.

    Raises:
        ValueError: If it is missing, damaged, of another shape or not uint8.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        got = getattr(error, "strerror", None) or str(error).splitlines()[0]
    else:
        if isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == shape:
            return found
        got = f"{getattr(found, 'dtype', type(found).__name__)} {getattr(found, 'shape', '')}"
    raise ValueError(
        f"Expected uint8 numbers of the shape {shape} in {path}, got: {got}. Restore the file, or move "
        f"{path.parent.name} out of the data root, and the corruptions are made."
    )
