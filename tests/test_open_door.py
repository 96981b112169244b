"""Networks of other people: from a file in an otherwise empty folder, or from torchvision, by one option."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cifar_lightning
from cifar_lightning.models import introspection

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # processes of their own start slowly on a busy machine

DATA = (
    "--data.source=synthetic",
    "--data.synthetic_train=300",
    "--data.synthetic_test=100",
    "--data.val_size=100",
    "--data.batch_size=50",
)
OWN = '''
import torch
from torch import nn

class Tiny(nn.Module):
    """Two inputs to a head that is not called head."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.pool = nn.MaxPool2d(4)
        self.deep = nn.Conv2d(width, width, 3)
        self.scores = nn.Bilinear(width, width, 10)

    def forward(self, images):
        x = self.pool(self.conv(images).relu())
        return self.scores(x.amax((2, 3)), self.deep(x).relu().mean((2, 3)))
'''
NETS = {"mynet.Tiny": (), "torchvision.models.resnet18": ("--model.net.num_classes=10",)}
ROOT = Path(cifar_lightning.__file__).parent.parent


LINES = """
import sys, shlex
from cifar_lightning.main import main
for line in sys.argv[1:]:
    print(f"exit status {main(shlex.split(line))}", file=sys.stderr, flush=True)
"""


def lines(*commands: str, folder: Path, statuses: list[int] | None = None) -> list[str]:
    """Run command lines in one process, which is faster, and return the output of each."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([sys.executable, "-u", "-c", LINES, *commands], cwd=folder, env=environment, **pipes)
    assert done.returncode == 0, done.stdout
    assert [int(n) for n in re.findall(r"^exit status (\d+)$", done.stdout, re.M)] == (statuses or [0] * len(commands))
    return re.split(r"^exit status \d+$", done.stdout, flags=re.M)[:-1]


def start(*args: object, folder: Path) -> subprocess.Popen[str]:
    """Start the program as in a shell."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CIFAR_LIGHTNING")}
    environment |= {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cifar_lightning", *map(str, args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def command(*args: object, folder: Path, status: int = 0) -> str:
    """Run the program and return its output."""
    process = start(*args, folder=folder)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == status, output
    return output


@pytest.fixture(scope="module", params=NETS)
def trained(request, once) -> tuple[Path, Path, str]:
    """A folder, the run of a training in it with everything on, and the option that names the network."""

    def train(folder: Path) -> None:
        (folder / "mynet.py").write_text(OWN)
        options = (*NETS[request.param], *DATA, "--trainer.max_epochs=2", "--name=own", "--version=whole")
        assert "Traceback" not in command("fit", "--model.net", request.param, *options, folder=folder)

    folder = once(f"own-{request.param}", train)
    return folder, folder / "lightning_logs/own/whole", request.param


OF_A_FILE = pytest.mark.parametrize("trained", ["mynet.Tiny"], indirect=True)


def test_fit_draws_and_records_everything(trained):
    _, run, name = trained
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["net"]["class_path"] == name
    events = EventAccumulator(str(run), {"images": 0, "scalars": 0}).Reload().Tags()
    for figure in ("confusion", "filters", "feature_maps", "predictions", "mistakes", "reliability"):
        assert any(figure in tag for tag in events["images"]), figure
    layers = {tag.partition("/")[2] for tag in events["scalars"] if tag.startswith("layer_activation_std/")}
    assert len(layers) == 2 if name == "mynet.Tiny" else len(layers) >= 8


def test_what_is_done_with_a_run(trained):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, run, name = trained
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "mine.png")
    commands = ["test", "predict", "predict --images mine.png", "export --format onnx --output net.onnx"]
    if name == "mynet.Tiny":  # tests/test_report_networks.py shows a report of the other
        commands.append("report")
    said = lines(*(f"{line} --run {run}" for line in commands), folder=folder)
    for words, i in (("test on 100", 0), ("Predictions", 1), ("Predicted 1 of 1 files", 2)):
        assert words in said[i]
    if name == "mynet.Tiny":
        figures = {path.stem for path in (run / "report/figures").iterdir()}
        assert {"filters", "feature_maps", "probes", "features"} <= figures
        assert "Grad-CAM" in (run / "report/report.md").read_text()
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    session = onnxruntime.InferenceSession(folder / "net.onnx")
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    with torch.no_grad():
        expected = cifar_lightning.load(run, "cpu")(images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    if name == "torchvision.models.resnet18":
        model = cifar_lightning.load(run, "cpu")
        assert introspection.first_filters(model.net).shape == (64, 3, 7, 7)
        assert len(introspection.layers(model.net)) >= 8
        assert introspection.features(model.net, torch.randn(2, 3, 32, 32)).shape == (2, 512)


@OF_A_FILE
def test_a_killed_training_goes_on(trained):
    folder, whole, name = trained
    options = ("--model.net", name, *NETS[name], *DATA, "--trainer.max_epochs=2", "--name=own")
    options = (*options, "--figures.every_n_epochs=0")
    run = whole.with_name("killed")
    process = start("fit", *options, "--version=killed", folder=folder)
    deadline = time.monotonic() + 200
    while not (run / "checkpoints/last.ckpt").is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    command("fit", "--run", run, folder=folder)
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    weights = [torch.load(r / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for r in (whole, run)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


@OF_A_FILE
def test_a_sweep_over_an_argument(trained):
    folder, _, _ = trained
    options = {option.removeprefix("--").partition("=")[0]: option.partition("=")[2] for option in DATA}
    options |= {"trainer.max_epochs": 1, "figures.every_n_epochs": 0}
    (folder / "net.yaml").write_text("model: {net: {class_path: mynet.Tiny}}\n")
    text = "".join(f"  {key}: {value}\n" for key, value in options.items())
    (folder / "sweep.yaml").write_text(
        f"name: widths\naxes:\n  - model.net.width: [4, 6]\nconfigs: [net.yaml]\noptions:\n{text}test: false\n"
    )
    refused, _ = lines("sweep sweep.yaml", "sweep sweep.yaml --allow mynet", folder=folder, statuses=[2, 0])
    assert "add `--allow mynet` to the command line" in refused
    results = [json.loads(path.read_text()) for path in (folder / "lightning_logs/widths").glob("*/result.json")]
    assert [result["status"] for result in results] == ["completed"] * 2


@OF_A_FILE
def test_an_edited_file(trained, tmp_path):
    """The source that the run was trained with is used, and the edit is reported."""
    folder = Path(shutil.copytree(trained[0], tmp_path / "own"))
    run = folder / "lightning_logs/own/whole"
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    expected = cifar_lightning.load(run, "cpu")(images)
    (folder / "mynet.py").write_text(OWN.replace("amax", "amin"))
    assert torch.equal(cifar_lightning.load(run, "cpu")(images), expected)
    assert "mynet.py has changed since the run was trained" in command("test", "--run", run, folder=folder)
    (folder / "mynet.py").unlink()
    assert "test on 100" in command("test", "--run", run, folder=folder)


# ---- what is not trusted ---------------------------------------------------------------------------------------------

HOSTILE = "open('touched', 'w').close()\nfrom torch import nn\nclass Net(nn.Linear): pass\n"


@pytest.mark.parametrize("name", ["hostile", "timm.models"])
def test_a_configuration_runs_no_file_beside_it(tmp_path, name):
    (tmp_path / "hostile.py").write_text(HOSTILE)
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm/__init__.py").write_text(HOSTILE)
    (tmp_path / "timm/models.py").write_text(HOSTILE)
    (tmp_path / "net.yaml").write_text(f"model: {{net: {{class_path: {name}.Net}}}}\n")
    (tmp_path / "allow.yaml").write_text(f"allow: {name}\nmodel: {{net: {{class_path: {name}.Net}}}}\n")
    fits = [f"fit --config {file} {shlex.join(DATA)}" for file in ("net.yaml", "allow.yaml")]
    output, _ = lines(*fits, folder=tmp_path, statuses=[2, 2])
    assert f"add `--allow {name.partition('.')[0]}` to the command line" in output
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "lightning_logs").exists()


@OF_A_FILE
def test_a_run_of_a_stranger_runs_no_code(trained, tmp_path):
    _, run, _ = trained
    forged = tmp_path / "forged"
    forged.mkdir()
    for file in ("config.yaml", "result.json", "code/mynet.py", "code/manifest.json", "checkpoints/best.ckpt"):
        (forged / file).parent.mkdir(exist_ok=True)
        (forged / file).write_bytes((run / file).read_bytes())
    hostile = OWN + "\nopen('touched', 'w').close()\n"
    (forged / "code/mynet.py").write_text(hostile)
    copied = tmp_path / "with_its_manifest"
    shutil.copytree(forged, copied)
    manifest = json.loads((copied / "code/manifest.json").read_text())
    manifest["sources"]["mynet.py"] = cifar_lightning.imports.sha256(copied / "code/mynet.py")
    (copied / "code/manifest.json").write_text(json.dumps(manifest))
    changed, stranger = lines(f"test --run {forged}", f"test --run {copied}", folder=tmp_path, statuses=[2, 2])
    assert "as `fit` kept it with the run, got another content" in changed
    assert "add `--allow mynet` to the command line" in stranger
    assert not [*tmp_path.rglob("touched")]
    command("test", "--run", copied, "--allow", "mynet", folder=tmp_path)
    assert [*tmp_path.rglob("touched")]


def test_allow_needs_the_name_of_a_module(tmp_path):
    output = command("fit", "--allow", "--model", "MLPClassifier", folder=tmp_path, status=2)
    assert "Expected the name of a module after `--allow`, such as mynet, got '--model'" in output
