"""Runs that take half a second, on synthetic images, for tests of the command line."""

import hashlib
from pathlib import Path

import torch

from cifar_lightning.__main__ import main

SIZES = (
    "--data.source=synthetic",
    "--data.synthetic_train=600",
    "--data.synthetic_test=200",
    "--data.val_size=100",
    "--data.batch_size=100",
    "--trainer.max_epochs=2",
    "--trainer.log_every_n_steps=1",
)
BARE = ("--figures.every_n_epochs=0", "--layers.every_n_steps=0")
"""No figures, which take five times as long as a tiny training."""
DATA = (*SIZES, *BARE)
DRAWING = ("--figures.every_n_epochs=1", "--layers.every_n_steps=1")
MLP = ("--model", "MLPClassifier", "--model.net.widths", "[32]")
CNN = ("--model", "CNNClassifier", "--model.net.widths", "[8, 8]", "--model.net.dropout", "0.2")


def fit(*args: object, save_dir: str | Path = "lightning_logs") -> Path:
    """Trains and returns the run folder; options given here beat those of DATA."""
    before = set(Path(save_dir).glob("*/*"))
    assert main(["fit", *DATA, *(str(arg) for arg in args)]) == 0
    (run,) = set(Path(save_dir).glob("*/*")) - before
    return run


def state_sha256(run: Path, checkpoint: str = "last") -> str:
    """SHA-256 over names and bytes of all weights and buffers in a checkpoint of a run."""
    state = torch.load(run / f"checkpoints/{checkpoint}.ckpt", weights_only=True)["state_dict"]
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
