"""`cifar-lightning predict --images`: predict the classes of one's own pictures."""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cifar_lightning import CLASSES, load
from cifar_lightning.analysis.style import image_array
from cifar_lightning.data.pictures import UnreadableError, find_pictures, load_picture, readable
from cifar_lightning.files import user_path, write_text_atomic
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.models.tta import SHIFTS, TTAName
from cifar_lightning.pages import render
from cifar_lightning.runs import run_folder
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["predict_pictures"]

logger = logging.getLogger(__name__)

BATCH = 500
MAX_GALLERY = 300
"""Pictures on the page; the tables contain all."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = ArgumentParser(
        "cifar-lightning predict",
        description="Predict the classes of your own pictures. Each is turned upright, put on white where it is "
        "transparent, scaled so that its shorter side has 32 pixels, and cut to the middle square.",
    )
    made.add_argument("--run", type=user_path, required=True, metavar="FOLDER", help="run whose best weights predict")
    made.add_argument(
        "--images", type=Path, nargs="+", required=True, metavar="PATH", help="pictures, or folders of them"
    )
    made.add_argument("--output", type=user_path, help="folder to write into; default: predictions/ in the run")
    made.add_argument("--tta", choices=list(SHIFTS), default="none", help="views of each picture to average")
    return made


def predict_pictures(args: list[str]) -> int:
    """Write images.csv, images.json and images.html.

    Args:
        args: the command line after `predict`.

    Returns:
        The exit status: 0, or 1 when some of the files could not be read; those are named and skipped.

    Raises:
        ValueError: when there are no readable pictures, or the run has no checkpoint.
    """
    parsed = parser().parse_args(args)
    paths = find_pictures(parsed.images)
    run = run_folder(parsed.run)
    model = load(run)
    read: list[Path] = []
    images: list[Tensor] = []
    for path, image in zip(paths, load_pictures(paths), strict=True):
        if isinstance(image, str):
            logger.warning(f"Skipped {readable(path)}: {image}")
        else:
            read.append(path)
            images.append(image)
    if not read:
        raise ValueError(f"Expected at least one picture that can be read, got {len(paths):,} files that cannot.")
    stacked = torch.stack(images)
    probabilities = predict(model, stacked, parsed.tta)
    folder = parsed.output or run / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomic(folder / "images.csv", as_csv(read, probabilities))
    write_text_atomic(folder / "images.json", as_json(read, probabilities))
    write_text_atomic(folder / "images.html", as_html(read, stacked, probabilities))
    skipped = len(paths) - len(read)
    logger.info(f"Predicted {len(read):,} of {len(paths):,} files, {skipped:,} skipped: {folder / 'images.html'}")
    return 1 if skipped else 0


def load_pictures(paths: Sequence[Path]) -> list[Tensor | str]:
    """Return the image of each file, uint8 (3, 32, 32), or why it cannot be read; several threads decode."""

    def load(path: Path) -> Tensor | str:
        try:
            return load_picture(path)
        except UnreadableError as error:
            return str(error)

    # A picture of the most pixels takes up to 2 GB while it is decoded: a few at a time.
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about metadata that nothing here looks at
        return list(pool.map(load, paths))


def predict(model: ImageClassifier, images: Tensor, tta: TTAName) -> Tensor:
    """Return the probabilities (N, 10) of uint8 images (N, 3, 32, 32)."""
    with torch.inference_mode():
        logits = [model.predict_logits(batch.to(model.device), tta).float().cpu() for batch in images.split(BATCH)]
    return torch.cat(logits).softmax(1)


def rows(paths: Sequence[Path], probabilities: Tensor) -> list[dict[str, object]]:
    """Return a row for each picture: its file, class, probability, and all ten probabilities."""
    return [
        {
            "file": readable(path),
            "prediction": CLASSES[max(range(len(shares)), key=shares.__getitem__)],
            "probability": round(max(shares), 6),
            **{name: round(share, 6) for name, share in zip(CLASSES, shares, strict=True)},
        }
        for path, shares in zip(paths, probabilities.tolist(), strict=True)
    ]


def as_csv(paths: Sequence[Path], probabilities: Tensor) -> str:
    """Return a CSV table with a row for each picture."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["file", "prediction", "probability", *CLASSES], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(paths, probabilities))
    return text.getvalue()


def as_json(paths: Sequence[Path], probabilities: Tensor) -> str:
    """Return a JSON list with an object for each picture."""
    return json.dumps(rows(paths, probabilities), indent=1) + "\n"


def as_html(paths: Sequence[Path], images: Tensor, probabilities: Tensor) -> str:
    """Return a page with the input of the network for each picture, and its class."""
    shown = []
    for row, image in zip(rows(paths, probabilities)[:MAX_GALLERY], image_array(images[:MAX_GALLERY]), strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="png")
        shown.append({**row, "png": file.getvalue()})
    notes = ["Each picture as the network gets it, 32×32 pixels, with the predicted class and its probability."]
    if len(paths) > MAX_GALLERY:
        notes.append(f"The page shows the first {MAX_GALLERY:,} of {len(paths):,} pictures; images.csv contains all.")
    return render("gallery.html", title="Predictions", notes=notes, images=shown)
