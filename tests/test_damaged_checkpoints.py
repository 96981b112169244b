"""A checkpoint that is damaged, or not of this network, is refused before anything of it is used."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from cifar_lightning.models import MLP, MLPClassifier
from cifar_lightning.runs import check_checkpoint


@pytest.fixture
def model() -> MLPClassifier:
    return MLPClassifier(MLP([4]))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.ckpt"


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def checkpoint_of(model: torch.nn.Module) -> dict[str, object]:
    """What Lightning saves, as far as it is looked at."""
    progress = {"epoch": 3, "global_step": 9, "optimizer_states": [], "pytorch-lightning_version": "2.6.6"}
    return {"state_dict": model.state_dict(), **progress}


def test_a_good_checkpoint(model, path):
    torch.save(checkpoint_of(model), path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_checkpoint(path, MLPClassifier(MLP([4])))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_that_is_not_there(model, path):
    with pytest.raises(ValueError, match=r"`--ckpt_path` to be a checkpoint file, got .*ckpt, which does not exist"):
        check_checkpoint(path, model)
    path.mkdir()
    with pytest.raises(ValueError, match="which does not exist"):
        check_checkpoint(path, model)


@pytest.mark.parametrize("content", [b"", b"garbage, not a checkpoint", bytes(range(256)) * 20, b"PK\x03\x04 no zip"])
def test_garbage(model, path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"Expected a checkpoint of this project in .*it cannot be read \(") as caught:
        check_checkpoint(path, model)
    # The message of torch advises to switch its protection off. Ours must not repeat that.
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_checkpoint_cut_short(model, path, share):
    torch.save(checkpoint_of(model), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"it cannot be read \("):
        check_checkpoint(path, model)


def test_a_bit_that_has_flipped(model, path):
    torch.save(checkpoint_of(model), path)
    content = bytearray(path.read_bytes())
    at = content.find(model.net.head.bias.detach().numpy().tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # takes it as it is
    with pytest.raises(ValueError, match=r"cannot be read \(.*data/\d+ in it has changed since it was written"):
        check_checkpoint(path, model)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_does_not_run(model, path, tmp_path, form):
    marker = tmp_path / "ran"
    content = {"state_dict": model.state_dict(), "callbacks": Attack(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(Attack(marker), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match="objects other than tensors and plain values, which could run code") as caught:
        check_checkpoint(path, model)
    assert "weights_only" not in str(caught.value)
    assert not marker.exists()
    if form != "pickle":
        torch.load(path, weights_only=False)  # which does run it: else this would prove nothing
    else:
        pickle.loads(path.read_bytes())
    assert marker.exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {}}, 7])
def test_plain_values_that_are_no_checkpoint(model, path, content):
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"Expected a checkpoint of this project in .*but it holds no .*global_step"):
        check_checkpoint(path, model)


def test_a_checkpoint_without_weights(model, path):
    torch.save({**checkpoint_of(model), "state_dict": 5}, path)
    with pytest.raises(ValueError, match="its state_dict holds no weights"):
        check_checkpoint(path, model)


@pytest.mark.parametrize(
    ("other", "n", "name"),
    [
        # Wider: the weight and the two parameters and two statistics of the normalisation, and the head.
        (MLPClassifier(MLP([5])), 6, "net.head.weight"),
        (MLPClassifier(MLP([4], norm="none")), 6, r"net\.hidden\.0"),
    ],
)
def test_weights_of_another_network(model, path, other, n, name):
    torch.save(checkpoint_of(other), path)
    message = rf"Expected a checkpoint of this network in .*but {n} of its parameters differ .*such as {name}.*`--run"
    with pytest.raises(ValueError, match=message):
        check_checkpoint(path, model)


def test_the_check_reads_no_weights_into_memory(model, path, monkeypatch):
    torch.save(checkpoint_of(model), path)
    seen = {}
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: seen.update(options) or load(*args, **options))
    check_checkpoint(path, model)
    assert seen == {"map_location": "meta", "weights_only": True}
