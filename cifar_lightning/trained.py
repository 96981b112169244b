"""Load the trained network of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from cifar_lightning.cli.training import CifarCLI
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.imports import source_of
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.runs import Run, check_checkpoint, published_names, run_folder, unpacked

__all__ = ["load_trained"]


class ModelAndData(CifarCLI):
    """The model and the data of a run. There is no trainer: the run may come from a machine with other devices."""

    def __init__(self, run: Run) -> None:
        unused = ("logger=false", "callbacks=null", "plugins=null", "profiler=null")
        super().__init__(["test", "--run", str(run.folder), *(f"--trainer.{option}" for option in unused)])

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse the configuration of the run, and leave the global generators as they are."""
        super().parse_arguments(parser, args)
        self.config.seed_everything = False

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Return None: no trainer is needed."""
        return None  # type: ignore[return-value]


def load_trained(
    run: str | Path | Run,
    device: str | torch.device | None = None,
    allow: Sequence[str] = (),
    pretrained: bool = True,
) -> tuple[ImageClassifier, CIFAR10DataModule]:
    """Return the trained network of a run, as `cifar_lightning.load` does, and its data.

    Args:
        run: A run, its folder, or the name of a published network, such as "cnn".
        device: The device for the network; None for the GPU where there is one.
        allow: Modules of your own that the run names.
        pretrained: Whether to load the trained weights; False for initial ones.

    Returns:
        The network in eval mode, and the data module, not set up yet.

    Raises:
        ValueError: If the folder is not a run, or has no checkpoint that can be read and fits its configuration, or
            if there is no such device.
    """
    if not isinstance(run, Run) and str(run) in published_names() and not Path(run).exists():
        with tempfile.TemporaryDirectory() as folder:
            return load_trained(Run(unpacked(str(run), Path(folder))), device, allow, pretrained)
    run = run if isinstance(run, Run) else Run(run_folder(run))
    _ = run.config_path
    path = run.checkpoint("best") if pretrained else None
    with isolate_rng(), source_of(run.folder, allow):
        made = ModelAndData(run)
    model: ImageClassifier = made.model
    if path is not None:
        check_checkpoint(path, model)
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:  # which of them depends on how PyTorch was built
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f'Expected `device` to be a device of this machine, such as "cpu", got {device}: {reason}'
        ) from error
    return model.eval(), made.datamodule
