from __future__ import annotations

import shutil
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from tiny import CNN, DATA, MLP

import cifar_lightning.export as module
from cifar_lightning import load
from cifar_lightning.__main__ import main

MODELS = {
    "mlp": (*MLP, "--model.net.whiten_components=64"),
    "cnn": (*CNN, "--model.net.whiten_px=2", "--model.channels_last=true", "--model.temperature=0.5"),
}


@pytest.fixture(scope="module", params=["mlp"])
def trained(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    place = ("--trainer.max_epochs=1", "--save_dir", str(folder), "--name", "n", "--version", "v")
    assert main(["fit", *DATA, *MODELS[request.param], *place]) == 0
    return folder / "n/v"


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


# torch 2.12 and older cannot write the adaptive pooling of the CNN.
LARGEST = "cnn" if torch.__version__ >= "2.13" else "mlp"


@pytest.mark.parametrize(("trained", "form"), [("cnn", "torch_export"), (LARGEST, "onnx")], indirect=["trained"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_file_answers_as_the_checkpoint_for_any_number_of_images(run, form, capsys):
    assert main(["export", "--run", str(run), "--format", form]) == 0
    assert "same class on 1,000 of 1,000" in capsys.readouterr().err
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)
    model = load(run, device="cpu")
    for n in (1, 7):
        with torch.no_grad():
            expected = model(images[:n])
        if form == "onnx":
            session = onnxruntime.InferenceSession(run / "model.onnx")
            (found,) = map(torch.from_numpy, session.run(None, {"images": images[:n].numpy()}))
        else:
            with (run / "model.pt2").open("rb") as file:
                found = torch.export.load(file).module()(images[:n])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert sorted(path.name for path in run.iterdir() if path.name.startswith(".")) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_file_that_answers_otherwise_is_not_kept(run, capsys, monkeypatch):
    (run / "model.pt2").write_bytes(b"the old one")
    monkeypatch.setattr(module, "difference", lambda found, expected: (0.5, len(expected) - 3))
    assert main(["export", "--run", str(run), "--format", "torch_export"]) == 2
    error = capsys.readouterr().err
    assert "Expected the logits of the exported network within " in error
    assert "same class on 997 of 1,000" in error
    assert (run / "model.pt2").read_bytes() == b"the old one"
    assert not list(run.glob(".*"))


def test_the_check_sees_what_differs():
    expected = torch.tensor([[1.0, 2.0], [5.0, 0.0]])
    assert module.difference(expected + torch.tensor([[0.0, 0.25], [0.0, 0.0]]), expected) == (0.25, 2)
    assert module.difference(expected.flip(1), expected)[1] == 0


class Bessel(torch.nn.Module):
    """A network of which ONNX has no operation."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j1(images.float().mean((1, 2, 3)))[:, None].expand(-1, 10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_an_operation_that_onnx_has_not_is_one_message(run, capsys, monkeypatch):
    monkeypatch.setattr(module, "PixelsToLogits", lambda model: Bessel())
    assert main(["export", "--run", str(run)]) == 2
    error = capsys.readouterr().err
    assert "bessel_j1" in error
    assert "or export with `--format torch_export`" in error
    assert not (run / "model.onnx").exists()


def test_missing_packages_are_one_message(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", "--run", str(run)]) == 2
    error = capsys.readouterr().err
    assert "cifar-lightning[export]" in error
    assert "Traceback" not in error


def test_places_and_runs_that_are_not_there(run, capsys):
    assert main(["export", "--run", str(run), "--output", "nowhere/model.onnx"]) == 2
    assert "`--output` in a folder that exists" in capsys.readouterr().err
    assert main(["export", "--run", "nowhere"]) == 2
    assert "which is neither" in capsys.readouterr().err
