"""`cifar-lightning export`: write a trained network for other programs, checked against its checkpoint."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_lightning import load
from cifar_lightning.data.synthetic import synthetic_images
from cifar_lightning.files import replacing, user_path
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.runs import run_folder
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["export"]

logger = logging.getLogger(__name__)

CHECKED = 1000
"""Number of images of the embedded stand-in on which the file is compared with the checkpoint: no data are needed."""
TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit. Logits have no scale of their own, and float32 sums
in another order differ by about 1e-6 of the numbers that are added, which may be far larger than their sum."""
SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = ArgumentParser(
        "cifar-lightning export",
        description="Write the network with its normalisation: uint8 images (N, 3, 32, 32) in, logits (N, 10) out, "
        "for any N. Compare its logits with those of the checkpoint.",
    )
    made.add_argument("--run", type=user_path, required=True, metavar="FOLDER", help="run whose best weights to export")
    made.add_argument(
        "--format", choices=list(SUFFIXES), default="onnx", help="default: onnx (needs the extra `export`)"
    )
    made.add_argument("--output", type=user_path, help="file to write; default: model.onnx or model.pt2 in the run")
    return made


class PixelsToLogits(nn.Module):
    """A network together with its normalisation."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.net = model.net.to(memory_format=torch.contiguous_format)
        self.temperature = model.temperature
        self.register_buffer("scale", 1 / (255 * model.std))
        self.register_buffer("offset", model.mean / model.std)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, 10) of uint8 images (N, 3, 32, 32)."""
        return self.net(images.float() * self.scale - self.offset) / self.temperature


def export(args: list[str]) -> int:
    """Write the file and check it.

    Args:
        args: the command line after `export`.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: when there is nothing to export, the packages for the format are missing, or the logits of the file
            differ from those of the checkpoint; it is then deleted.
    """
    parsed = parser().parse_args(args)
    folder = run_folder(parsed.run)
    model = load(folder, device="cpu")
    path = parsed.output or folder / f"model{SUFFIXES[parsed.format]}"
    if not path.parent.is_dir():
        raise ValueError(f"Expected `--output` in a folder that exists, got {path}.")
    images = synthetic_images("test", CHECKED).images
    with torch.inference_mode():
        expected = torch.cat([model(batch) for batch in images.split(250)])
    write = to_onnx if parsed.format == "onnx" else to_torch_export
    with replacing(path) as unchecked:  # the file appears under its name only after the check
        run = write(PixelsToLogits(model).eval(), Path(unchecked.name))
        parts = [run(batch) for batch in (images[:1], *images[1:].split(250))]  # other sizes than the traced one
        worst, agree = difference(torch.cat(parts), expected)
        message = (
            f"Checked on {len(images):,} SYNTHETIC images: largest difference of a logit {worst:.2g}, same class on "
            f"{agree:,} of {len(images):,}"
        )
        largest = float(expected.abs().max())
        if worst > TOLERANCE * largest or agree < len(images):
            raise ValueError(
                f"Expected the logits of the exported network within {TOLERANCE * largest:.2g} of those of the "
                f"checkpoint, whose largest is {largest:.3g}, and the same classes. {message}."
            )
    logger.info(f"{message}.")
    logger.info(f"Exported: {path}")
    return 0


def difference(found: Tensor, expected: Tensor) -> tuple[float, int]:
    """Return the largest difference between logits, and the number of images with the same class."""
    return float((found - expected).abs().max()), int((found.argmax(1) == expected.argmax(1)).sum())


def to_onnx(module: nn.Module, path: Path) -> Callable[[Tensor], Tensor]:
    """Write ONNX and return a function that runs the file in ONNX Runtime."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"Expected the packages of the extra `export` for ONNX, got: {error}. Install them with `pip install "
            "'cifar-lightning[export]'`, or export with `--format torch_export`."
        ) from error
    try:
        torch.onnx.export(
            module,
            (torch.zeros(2, 3, 32, 32, dtype=torch.uint8),),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        raise ValueError(
            f"Expected a network that torch.onnx {torch.__version__} can write, got: "
            f"{str(reason).splitlines()[0].rstrip('.')}. Take newer versions of torch and onnxscript, or export with "
            "`--format torch_export`."
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def to_torch_export(module: nn.Module, path: Path) -> Callable[[Tensor], Tensor]:
    """Write a program of torch.export and return a function that runs the file."""
    example = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    program = torch.export.export(module, (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
    with path.open("wb") as file:
        torch.export.save(program, file)
    with path.open("rb") as written:
        loaded = torch.export.load(written).module()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = loaded(images)
        return logits

    return run
