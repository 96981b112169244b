"""Trained networks that come with the package, as runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from cifar_lightning.files import sha256, write_bytes_atomic, write_text_atomic
from cifar_lightning.runs.run import CHECKPOINTS, CONFIG, RESULT, Run

__all__ = ["publish", "published_card", "published_names", "run_folder", "unpacked"]

WEIGHTS = Path(__file__).parent.with_name("weights")
"""A folder for each network, with its configuration, its results, its weights and its card."""
FILE = "weights.safetensors"
CARD = "README.md"
SUMS = "SHA256SUMS"
"""SHA-256 of each file in `WEIGHTS`, in the form of sha256sum."""
UNPACKED = Path("lightning_logs", "published")


def published_names() -> list[str]:
    """Return the names of the networks, such as "cnn"."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{FILE}"))


def published_card(name: str) -> str:
    """Return the card of a network in Markdown: what it is, how it was trained and measured, and its limits."""
    return (WEIGHTS / name / CARD).read_text(encoding="utf-8")


def run_folder(run: str | Path) -> Path:
    """Return the folder of a run that is given by its folder, or by the name of a published network.

    Commands write into the folder of a run. That of a published network is made in `UNPACKED` when it is first named.

    Raises:
        ValueError: If there is neither, or a file of the network has changed since it was published.
    """
    name, published = str(run), published_names()
    if Path(run).exists() or Path(run).name != name or not published:
        return Path(run)
    if name not in published:
        raise ValueError(
            "Expected the folder of a run, such as lightning_logs/cnn/version_0, or the name of a published network "
            f"({', '.join(published)}), got {name}, which is neither."
        )
    return unpacked(name, UNPACKED)


def unpacked(name: str, parent: Path) -> Path:
    """Return a run folder in `parent` with a published network; make it unless it is there.

    Its name has the first digits of a checksum, so that a network of another version gets another folder.

    Args:
        name: One of `published_names()`.
        parent: Folder for it, made as well.

    Raises:
        ValueError: If a file of the network has changed since it was published.
    """
    from safetensors.torch import load_file

    source = WEIGHTS / name
    folder = parent / f"{name}-{check(name)[:8]}"
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    result = json.loads((source / RESULT).read_text(encoding="utf-8"))
    checkpoint = {  # what Lightning asks of a checkpoint to evaluate; a training cannot continue from it
        "state_dict": {key: whole(tensor) for key, tensor in load_file(source / FILE).items()},
        "epoch": result["fit"]["epochs"],
        "global_step": result["fit"]["steps"],
        "optimizer_states": [],
        "lr_schedulers": [],
        "pytorch-lightning_version": result["versions"]["lightning"],
    }
    with tempfile.TemporaryDirectory(dir=parent, prefix=".") as temporary:
        made = Path(temporary, name)
        (made / CHECKPOINTS).mkdir(parents=True)
        for file in (CONFIG, RESULT):
            shutil.copyfile(source / file, made / file)
        torch.save(checkpoint, Run(made).checkpoint_path("best"))
        try:
            made.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    return folder


def publish(run: Run, name: str, card: str, temperature: float, without_views: dict[str, Any]) -> Path:
    """Write the configuration, the results, the weights and the card of a run into `WEIGHTS`, and their checksums.

    Matrices and filters are rounded to float16; biases and the statistics of images and of normalisations, which are
    few, stay as they are.

    Args:
        run: A run that was tested.
        name: Of the published network.
        card: In Markdown; its first line is a title.
        temperature: Divides the logits: `model.temperature` of the published network.
        without_views: The entry "test" of `result.json` for each image as it is; added as "test_without_views".

    Returns:
        Its folder.

    Raises:
        ValueError: If the run has no checkpoint, or was not tested.
    """
    from safetensors.torch import save

    from cifar_lightning.trained import load_trained

    if "test" not in run.result:
        raise ValueError(f"Expected a run that was tested, got {run.folder}. Run `test --run {run.folder}` first.")
    model = load_trained(run, device="cpu")[0]
    config = run.config
    config["model"]["init_args"]["temperature"] = temperature
    config["trainer"]["precision"] = None  # of the device that it is used on
    result = {**run.result, "test_without_views": without_views}
    folder = WEIGHTS / name
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(folder / FILE, save({key: rounded(tensor) for key, tensor in model.state_dict().items()}))
    write_text_atomic(folder / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    write_text_atomic(folder / RESULT, json.dumps(result, indent=2) + "\n")
    write_text_atomic(folder / CARD, card)
    sums = {path: sha256(WEIGHTS / path) for published in published_names() for path in files_of(published)}
    write_text_atomic(WEIGHTS / SUMS, "".join(f"{digest}  {path}\n" for path, digest in sums.items()))
    return folder


def whole(weights: Tensor) -> Tensor:
    """Return published weights as the network takes them."""
    return weights.float() if weights.is_floating_point() else weights


def rounded(weights: Tensor) -> Tensor:
    """Return weights as they are published."""
    return (weights.half() if weights.is_floating_point() and weights.ndim in (2, 4) else weights).contiguous()


def files_of(name: str) -> list[str]:
    """Return the files of a published network, as paths in `WEIGHTS`."""
    return [f"{name}/{file}" for file in (CARD, CONFIG, RESULT, FILE)]


def check(name: str) -> str:
    """Check that the files of a network are those that were published, and return a checksum of all.

    Raises:
        ValueError: If one has changed or is missing.
    """
    lines = (WEIGHTS / SUMS).read_text(encoding="utf-8").splitlines()
    expected = {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
    for path in files_of(name):
        if not (WEIGHTS / path).is_file() or expected.get(path) != sha256(WEIGHTS / path):
            raise ValueError(
                f"Expected {WEIGHTS / path} as it was published, got another file (SHA-256). Install the package anew."
            )
    return hashlib.sha256("".join(expected[path] for path in files_of(name)).encode()).hexdigest()
