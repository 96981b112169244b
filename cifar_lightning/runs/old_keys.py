"""Configurations that earlier versions recorded, in today's keys."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["upgraded"]

ARGUMENTS_OF_NET = {
    "MLPClassifier": ("widths", "activation", "norm", "dropout", "whiten_components"),
    "CNNClassifier": (
        *("widths", "depths", "kernel_size", "norm", "activation", "pooling", "residual", "dropout", "logit_scale"),
        *("whiten_px", "dirac", "norm_momentum", "norm_scale"),
    ),
    "ResNetClassifier": ("depth",),
}
"""Arguments that the classifiers had before they took a network."""
CADENCE = "_every_n_epochs"
"""End of the figure options that had a cadence each."""


def upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run with today's keys.

    Args:
        config: as `config.yaml` holds it, of this or an earlier version; stays as it is.
    """
    config = copy.deepcopy(config)
    model = config.get("model")
    if isinstance(model, dict) and isinstance(model.get("init_args"), dict) and "net" not in model["init_args"]:
        name = str(model.get("class_path")).rpartition(".")[2]
        arguments = model["init_args"]
        net = {key: arguments.pop(key) for key in ARGUMENTS_OF_NET.get(name, ()) if key in arguments}
        if net:
            path = f"cifar_lightning.models.{name.removesuffix('Classifier')}"
            model["init_args"] = {"net": {"class_path": path, "init_args": net}, **arguments}
    if any(key.endswith(CADENCE) for key in config.get("figures") or {}):
        config["figures"] = upgraded_figures(config["figures"])
    layers = config.get("layers") or {}
    if "norms_every_n_steps" in layers:
        config["layers"] = {"every_n_steps": layers["norms_every_n_steps"]}
    return config


def upgraded_figures(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the options of figures with one cadence and one list."""
    cadences = {key.removesuffix(CADENCE): every for key, every in figures.items() if key.endswith(CADENCE) and every}
    projector = ["projector"] if figures.get("projector_images") else []
    return {"every_n_epochs": max(cadences.values(), default=0), "show": [*cadences, *projector]}
