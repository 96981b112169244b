from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from tiny import MLP, fit

from cifar_lightning import load
from cifar_lightning.__main__ import main
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.synthetic import synthetic_images
from cifar_lightning.runs import Run, published
from cifar_lightning.runs.published import FILE, publish, published_card, published_names, run_folder, unpacked

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Run:
    """A run that was tested, published as `tiny`."""
    found = Run(finished(*MLP, "--model.net.whiten_components=8", "--test"))
    monkeypatch.setattr(published, "WEIGHTS", tmp_path / "weights")
    publish_tiny(found)
    return found


def publish_tiny(run: Run) -> None:
    publish(run, "tiny", "# tiny: a network for tests\n", 2.0, run.result["test"])


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_published_network_answers_as_its_run_and_leaves_nothing_behind(run, tmp_path):
    images = torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8)
    before = everything(tmp_path)
    mine, theirs = load(run, device="cpu"), load("tiny", device="cpu")
    assert not theirs.training
    assert everything(tmp_path) == before
    with torch.inference_mode():
        logits = mine(images)
        torch.testing.assert_close(2 * theirs(images), logits, rtol=0, atol=2e-3 * float(logits.abs().max()))
    for name, weights in theirs.state_dict().items():
        expected = mine.state_dict()[name]
        rounds = weights.is_floating_point() and weights.ndim in (2, 4)  # matrices and filters
        assert torch.equal(weights, expected.half().float() if rounds else expected), name


def test_commands_take_its_name_and_write_into_one_folder(run, tmp_path, capsys):
    Image.new("RGB", (32, 32)).save("cat.png")
    folder = run_folder("tiny")
    assert folder.parent == Path("lightning_logs/published")
    assert main(["test", "--run", "tiny"]) == 0
    assert main(["predict", "--run", "tiny", "--images", "cat.png"]) == 0
    assert main(["compare", "tiny", str(run.folder)]) == 0
    assert list(folder.parent.iterdir()) == [folder]
    assert "predictions/images.csv" in everything(folder)
    again = Run(folder).result["test"]["metrics"]
    assert again["test/acc"] == pytest.approx(run.result["test"]["metrics"]["test/acc"], abs=0.051)  # of 20 images


def test_initial_weights_in_place_of_the_trained_ones(run):
    first, second = (load("tiny", pretrained=False).net.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(1)
    third = load(run, pretrained=False).net.state_dict()
    assert not torch.equal(first["head.weight"], third["head.weight"])
    assert not torch.equal(load("tiny").net.head.weight, first["head.weight"])


def test_torch_hub_lists_describes_and_loads_it(run, tmp_path):
    """As from GitHub, of which torch.hub has a copy."""
    torch.hub.set_dir(tmp_path / "hub")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/owner_cifar_lightning_main").symlink_to(ROOT)
    hub = {"github": "owner/cifar_lightning:main", "skip_validation": True, "trust_repo": True}
    assert torch.hub.list(**hub) == ["tiny"]
    said = torch.hub.help(model="tiny", **hub)
    assert said.startswith("tiny: a network for tests.")
    assert "pretrained: Whether" in said
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    network = torch.hub.load(hub["github"], "tiny", device="cpu", skip_validation=True, trust_repo=True)
    assert not network.training
    assert torch.equal(network(images), load("tiny", device="cpu")(images))
    fresh = torch.hub.load(str(ROOT), "tiny", pretrained=False, device="cpu", source="local")
    assert not torch.equal(fresh.net.head.weight, network.net.head.weight)


@pytest.mark.slow
def test_the_script_tests_it_fits_a_temperature_and_writes_a_card(run, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module("publish")
    assert script.command(["small", "--run", str(run.folder), "--held_out", str(run.folder), "--about", "an MLP"]) == 0
    result = json.loads((published.WEIGHTS / "small/result.json").read_text())
    assert result["test_without_views"]["tta"] == "none"
    temperature = load("small").temperature
    assert temperature != 1
    card = published_card("small")
    assert card.startswith("# small: an MLP\n")
    assert f"divided by\n{temperature:.3f}, which" in card
    assert f"{100 * result['test']['metrics']['test/acc']:.2f} (" in card
    assert not re.search(r"[{}]", card)
    alone = fit(*MLP, "--data.val_size=0", "--version=all")
    with pytest.raises(ValueError, match="no images were held out"):
        script.command(["other", "--run", str(run.folder), "--held_out", str(alone), "--about", "x"])
    monkeypatch.setattr(published, "rounded", lambda weights: -weights.contiguous())
    with pytest.raises(ValueError, match=r"published file with tta none\. Do not commit it"):
        script.command(["spoiled", "--run", str(run.folder), "--held_out", str(run.folder), "--about", "x"])


@pytest.mark.slow
def test_its_report_and_its_export(run):
    assert main(["report", "--run", "tiny"]) == 0
    assert main(["export", "--run=tiny", "--format", "torch_export"]) == 0
    assert {"report/report.html", "model.pt2"} <= everything(run_folder("tiny"))


def test_a_training_cannot_continue_from_it(run, capsys):
    before = everything(run_folder("tiny"))
    assert main(["fit", "--run", "tiny"]) == 2
    assert "Train anew with `fit --config lightning_logs/published/tiny-" in capsys.readouterr().err
    assert everything(run_folder("tiny")) == before


def test_a_wrong_name_lists_the_right_ones_and_a_folder_comes_first(run, capsys):
    for command in ("test", "report", "export"):
        assert main([command, "--run", "tinny"]) == 2
        said = capsys.readouterr().err
        assert "or the name of a published network (tiny), got tinny, which is neither." in said, command
    with pytest.raises(ValueError, match=r"\(tiny\), got tinny"):
        load("tinny")
    Path("tiny").mkdir()
    assert run_folder("tiny") == Path("tiny")
    with pytest.raises(ValueError, match=r"got tiny, which holds no config\.yaml"):
        load("tiny")


@pytest.mark.parametrize("name", ["README.md", "config.yaml", "result.json", FILE])
def test_a_file_that_was_changed_is_refused(run, tmp_path, name):
    file = tmp_path / "weights/tiny" / name
    file.write_bytes(file.read_bytes()[:-1] + b" ")
    with pytest.raises(ValueError, match=rf"{name} as it was published, got another file"):
        load("tiny")
    assert not Path("lightning_logs/published").exists()


def test_another_version_has_another_folder(run, tmp_path):
    first = unpacked("tiny", tmp_path / "unpacked")
    assert unpacked("tiny", tmp_path / "unpacked") == first
    state = torch.load(run.checkpoint("best"), weights_only=True)
    state["state_dict"]["net.head.weight"] += 1
    torch.save(state, run.checkpoint("best"))
    publish_tiny(Run(run.folder))
    second = unpacked("tiny", tmp_path / "unpacked")
    assert second != first
    assert not torch.equal(load(first).net.head.weight, load(second).net.head.weight)
    assert published_names() == ["tiny"]


def test_what_was_not_tested_is_not_published(run, tmp_path):
    (run.folder / "result.json").write_text('{"status": "completed"}')
    with pytest.raises(ValueError, match="Expected a run that was tested"):
        publish(Run(run.folder), "other", "# x", 1.0, {})
    assert published_names() == ["tiny"]


def tensors(name: str) -> dict[str, torch.Tensor]:
    return {key: value.float() for key, value in load_file(published.WEIGHTS / name / FILE).items()}


def batch_norm(x, w, name):
    statistics = (w[f"{name}.running_mean"], w[f"{name}.running_var"])
    return F.batch_norm(x, *statistics, w.get(f"{name}.weight"), w[f"{name}.bias"])


def plain_cnn(images):
    w = tensors("cnn")
    x = F.gelu(F.conv2d((images / 255 - w["mean"]) / w["std"], w["net.whiten.0.weight"], w["net.whiten.0.bias"]))
    for stage in range(3):
        for part, norm in (("down", 2), ("body", 1)):
            name = f"net.stages.{stage}.{part}"
            x = F.conv2d(x, w[f"{name}.0.weight"], padding=1)
            if part == "down":
                x = F.max_pool2d(x[..., stage // 2 :, stage // 2 :], 2)  # centred: 7 pixels lose their first row
            x = F.gelu(batch_norm(x, w, f"{name}.{norm}"))
    return 0.108 * F.linear(x.amax((2, 3)), w["net.head.weight"])


def plain_mlp(images):
    w = tensors("mlp")
    x = ((images / 255 - w["mean"]) / w["std"]).flatten(1) @ w["net.whitening"]
    for i in range(3):
        x = F.gelu(batch_norm(F.linear(x, w[f"net.hidden.{i}.0.weight"]), w, f"net.hidden.{i}.1"))
    return F.linear(x, w["net.head.weight"], w["net.head.bias"])


def plain_resnet20(images):
    w = tensors("resnet20")
    x = F.relu(
        batch_norm(F.conv2d((images / 255 - w["mean"]) / w["std"], w["net.stem.weight"], padding=1), w, "net.norm")
    )
    for stage in range(3):
        for block in range(3):
            name, stride = f"net.stages.{stage}.{block}", 2 if stage and not block else 1
            y = F.relu(batch_norm(F.conv2d(x, w[f"{name}.conv1.weight"], None, stride, 1), w, f"{name}.norm1"))
            y = batch_norm(F.conv2d(y, w[f"{name}.conv2.weight"], padding=1), w, f"{name}.norm2")
            added = (y.shape[1] - x.shape[1]) // 2  # channels of zeros on both sides
            x = F.relu(y + F.pad(x[..., ::stride, ::stride], (0, 0, 0, 0, added, added)))
    return F.linear(x.mean((2, 3)), w["net.head.weight"], w["net.head.bias"])


PLAIN = {"cnn": plain_cnn, "mlp": plain_mlp, "resnet20": plain_resnet20}
"""The published networks in plain torch: uint8 images (B, 3, 32, 32) to logits (B, 10), from the file alone."""


def test_the_networks_of_the_package_are_whole_and_small():
    assert set(published_names()) == set(PLAIN)
    sizes = [path.stat().st_size for path in published.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(sizes) <= 21e6
    for name in published_names():
        model = load(name, device="cpu")  # which checks the checksums
        assert not model.training
        assert published_card(name).startswith(f"# {name}: ")
        result = json.loads((published.WEIGHTS / name / "result.json").read_text())
        assert result["data"]["train"] == 50_000
        assert result["test"]["tta"] == model.tta


@pytest.mark.parametrize("name", PLAIN)
def test_plain_torch_gives_the_logits_of_a_published_network(name):
    images = synthetic_images("test", 20, 0).images
    model = load(name, device="cpu")
    with torch.inference_mode():
        expected = model.predict_logits(images, "none") * model.temperature
        torch.testing.assert_close(PLAIN[name](images), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_a_published_network_has_the_accuracy_of_its_card(name, real_root):
    """On every tenth test image, in plain torch: the class folders are sorted by class."""
    data = CIFAR10DataModule(str(real_root))
    data.setup("test")
    with torch.inference_mode():
        right = PLAIN[name](data.test.images[::10]).argmax(1) == data.test.labels[::10]
    result = json.loads((published.WEIGHTS / name / "result.json").read_text())
    assert float(right.double().mean()) == pytest.approx(result["test_without_views"]["metrics"]["test/acc"], abs=0.02)
