"""The best and the last checkpoint of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

__all__ = ["RunCheckpoint"]


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which remembers its best value also where the run folder has been moved.

    Lightning compares folders as text and starts anew where they differ, so that a worse epoch of a continued run
    would replace the best one. Here a run is the same when its name and version are.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what the checkpoint says of its run, when this run is the same one."""
        here = str(self.dirpath)
        if Path(state_dict["dirpath"]).parts[-3:] == Path(here).parts[-3:]:
            moved = {name: str(Path(here) / Path(path).name) for name, path in _paths(state_dict)}
            best = {str(Path(here) / Path(path).name): value for path, value in state_dict["best_k_models"].items()}
            state_dict = {**state_dict, **moved, "best_k_models": best, "dirpath": here}
        super().load_state_dict(state_dict)


def _paths(state_dict: dict[str, Any]) -> list[tuple[str, str]]:
    """The entries that name a file."""
    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    return [(name, state_dict[name]) for name in names if state_dict[name]]
