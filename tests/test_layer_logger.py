"""The curves of each layer in TensorBoard."""

from __future__ import annotations

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import CNN, MLP, fit

from cifar_lightning import models
from cifar_lightning.__main__ import main


def scalars(run) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(run)).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_norms_and_activations_are_those_of_the_network():
    run = fit(*CNN, "--layers.every_n_steps=5", "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.0")
    found = scalars(run)
    # Ten steps of which every fifth is written, and two epochs.
    assert set(found["step/gradient_norm"]) == {5, 10}
    assert set(found["layer_dead_units/stage1.conv1"]) == {5, 10}
    # With a learning rate of zero the weights at the end are those of every step.
    model = models.CNNClassifier(models.CNN([8, 8]))
    model.load_state_dict(torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    names = [name.removesuffix(".weight") for name, p in model.net.named_parameters() if p.ndim > 1]
    assert {tag for tag in found if tag.startswith("layer_weight_norm/")} == {
        f"layer_weight_norm/{name}" for name in names
    }
    for name, parameter in model.net.named_parameters():
        if parameter.ndim > 1:
            tag = f"layer_weight_norm/{name.removesuffix('.weight')}"
            assert found[tag][5] == pytest.approx(parameter.norm().item(), rel=1e-5)
    squares = sum(found[f"layer_gradient_norm/{name}"][5] ** 2 for name in names)
    assert found["step/gradient_norm"][5] == pytest.approx(squares**0.5, rel=1e-5)
    for layer in model.net.layers():
        assert 0 <= found[f"layer_dead_units/{layer}"][10] <= 1
        assert found[f"layer_activation_std/{layer}"][10] > 0


def test_zero_turns_them_off():
    run = fit(*MLP, "--layers.every_n_steps=0")
    assert not [tag for tag in scalars(run) if tag.startswith("layer_")]


def test_they_change_nothing():
    def weights(*options: str) -> dict[str, torch.Tensor]:
        run = fit(*CNN, *options)
        return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]

    on = weights("--layers.every_n_steps=1")
    off = weights("--layers.every_n_steps=0")
    assert on.keys() == off.keys()
    assert all(torch.equal(on[name], off[name]) for name in on)


def test_bad_cadences_are_one_message(capsys):
    options = ["every_n_steps=-1", "images=1"]
    assert main(["fit", *MLP, *(f"--layers.{option}" for option in options)]) == 2
    error = capsys.readouterr().err
    assert all(f"`--layers.{option.split('=')[0]}`" in error for option in options)
    assert "Traceback" not in error
