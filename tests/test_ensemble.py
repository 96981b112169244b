"""The mean of the probabilities of several runs."""

import csv
import json
from pathlib import Path

import pytest
import torch
from test_ddp import TWO, command
from tiny import CNN, MLP

from cifar_lightning.__main__ import main
from cifar_lightning.runs import Run
from cifar_lightning.trained import load_trained


@pytest.fixture
def members(finished) -> list[Path]:
    return [finished(*MLP, "--model.tta=flip"), finished(*CNN)]


def test_together(*args: object) -> dict:
    assert main(["test", *map(str, args)]) == 0
    newest = max(Path("lightning_logs/ensemble").iterdir(), key=lambda folder: int(folder.name.split("_")[1]))
    return json.loads((newest / "ensemble.json").read_text())


test_together.__test__ = False  # a helper


def test_the_mean_of_the_probabilities_is_that_of_the_networks(members, capsys):
    found = test_together("--run", members[0], "--run", members[1])
    probabilities = []
    for run in members:
        model, data = load_trained(run, device="cpu")
        data.setup("test")
        with torch.inference_mode():
            probabilities.append(model.predict_logits(data.test.images).softmax(1))
    labels = data.test.labels
    mean = torch.stack(probabilities).mean(0)
    hits = mean.argmax(1) == labels
    assert found["images"] == 200
    assert found["mean"]["acc"] == pytest.approx(float(hits.float().mean()), abs=1e-6)
    loss = -mean.gather(1, labels[:, None]).log().mean()
    assert found["mean"]["loss"] == pytest.approx(float(loss), abs=1e-4)
    low, high = found["interval"]
    assert low < found["mean"]["acc"] < high
    differ = probabilities[0].argmax(1) != probabilities[1].argmax(1)
    assert found["disagreement"] == pytest.approx(float(differ.float().mean()))
    gain, low, high = found["gain"]
    assert gain == pytest.approx(found["mean"]["acc"] - max(member["acc"] for member in found["members"]), abs=1e-6)
    assert low < gain < high
    matrix = torch.tensor(found["confusion"])
    assert matrix.sum(1).tolist() == labels.bincount(minlength=10).tolist()
    assert int(matrix.trace()) == int(hits.sum())
    with open("lightning_logs/ensemble/version_0/predictions/test.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["cat"]) for row in rows] == pytest.approx(mean[:, 3].tolist(), abs=2e-6)
    said = "".join(capsys.readouterr())
    assert f"| mean of the probabilities | {found['mean']['acc']:.4f} | {found['mean']['loss']:.4f} |" in said
    assert f"disagree on {found['disagreement']:.2%}" in said


def test_members_have_the_metrics_of_their_own_test(members):
    found = test_together(*(f"--run={run}" for run in members))
    for run, metrics in zip(members, found["members"], strict=True):
        assert main(["test", "--run", str(run)]) == 0
        alone = Run(run).result["test"]["metrics"]
        assert {f"test/{name}" for name in metrics} == set(alone)
        assert metrics == {name.removeprefix("test/"): pytest.approx(value, abs=1e-4) for name, value in alone.items()}


@pytest.mark.slow
def test_options_hold_for_all_runs(members):
    first = test_together(*(f"--run={run}" for run in members))
    second = test_together(*(f"--run={run}" for run in members), "--model.tta=none", "--data.eval_batch_size=33")
    assert first["members"][0]["loss"] != second["members"][0]["loss"]
    assert first["members"][1] == second["members"][1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_average_as_one_does(members):
    alone = test_together(*(f"--run={run}" for run in members))
    out = command("test", *(f"--run={run}" for run in members), *TWO, "--data.eval_batch_size=33")
    together = json.loads(Path("lightning_logs/ensemble/version_1/ensemble.json").read_text())
    assert together["confusion"] == alone["confusion"]
    assert together["mean"] == {name: pytest.approx(value, abs=1e-4) for name, value in alone["mean"].items()}
    assert out.count("mean of the probabilities") == 1
    assert not Path("lightning_logs/ensemble/version_2").exists()


def test_mistakes_are_one_message_before_anything_is_written(members, finished, capsys):
    other = finished(*MLP, "--data.synthetic_test=100", "--version=other")
    for args, message in {
        ("test", f"--run={members[0]}", f"--run={members[0]}"): "different runs to average, got one of them twice",
        ("test", f"--run={members[0]}", "--run=nothing"): "nothing, which is neither",
        ("validate", f"--run={members[0]}", f"--run={members[1]}"): "Expected one `--run` for `validate`, got 2",
        ("test", f"--run={members[0]}", f"--run={other}"): f"the same test images, got others in {other}",
    }.items():
        assert main(list(args)) == 2
        assert message in capsys.readouterr().err
    assert not Path("lightning_logs/ensemble").exists()
