"""Every benchmark runs, and what it compares is the same work."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from benchmarks import command, overhead, parallel, peer, scale, start, train
from tiny import DATA

from cifar_lightning.__main__ import main
from cifar_lightning.precision import has_bfloat16

ROOT = Path(__file__).parents[1]
SMALL = [arg for arg in DATA if "max_epochs" not in arg]
CONFIG = str(ROOT / "configs/cnn.yaml")
TINY = [
    *(*SMALL, "--data.images_per_step=200", "--data.image_sizes=[16, 32]"),
    *("--model.net.widths=[8, 8]", "--model.net.depths=[1, 1]"),
]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_bare_loop_takes_the_steps_of_fit(monkeypatch, precision):
    """The weights after both are equal: same initial weights, batches, rates, precision and updates."""
    options = [*TINY, "--data.val_size=0", "--trainer.max_epochs=2"]
    options += [f"--trainer.precision={precision}", "--model.net.whiten_bias=true", "--model.cooldown_epochs=0.5"]
    options += ["--model.final_lr_ratio=0.1", '--model.freeze_epochs={"whiten": 0.5, "stages.0": 1}']
    kept = {}
    original = overhead.CifarCLI
    monkeypatch.setattr(overhead, "CifarCLI", lambda args: kept.setdefault("cli", original(args)))
    assert overhead.bare_loop(["fit", "--config", CONFIG, *options]) > 0
    # In this process too: with another number of threads bfloat16 rounds otherwise.
    assert main(["fit", "--config", CONFIG, *options, "--version", "v"]) == 0
    state = torch.load("lightning_logs/cnn/v/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, value in kept["cli"].model.net.state_dict().items():
        torch.testing.assert_close(state[f"net.{name}"], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_overhead_compares_in_turn(capsys):
    args = Namespace(config=CONFIG, epochs=1, rounds=1, options=TINY)
    result = overhead.bench_overhead(args)
    assert result["ratios"] == [result["seconds"]["fit"][0] / result["seconds"]["bare loop"][0]]
    assert "fit / bare loop" in capsys.readouterr().out


@pytest.mark.slow
def test_train_tells_when_the_target_is_reached(capsys):
    args = Namespace(config=CONFIG, target=0.0, seeds=1, test=True, options=[*TINY, "--trainer.max_epochs=2"])
    (row,) = train.bench_train(args)["runs"]
    assert row["epochs_to_target"] == 1
    assert len(row["epoch_ends"]) == 2
    assert row["seconds_to_target"] == row["epoch_ends"][0] < row["epoch_ends"][1] <= row["seconds"]
    assert row["result"]["test"]["metrics"]["test/acc"] > 0
    heads, cells = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    assert heads[-4:] == ["PFLOP", "executed", "target", "0.0"]
    flops = [row["result"]["fit"][f"{kind}_flops"] / 1e15 for kind in ("training", "executed")]
    assert [float(cell) for cell in cells[-2:]] == pytest.approx(flops, rel=1e-3)
    assert 0 < flops[1] < flops[0]


@pytest.mark.slow
def test_peer_runs_fit_and_other_programs_in_turn(capsys):
    command = f'{sys.executable} -c "print(1); print(2); print(3)"'
    args = Namespace(
        config=CONFIG, peer=[command], rounds=1, first_seed=3, lines=2, options=[*TINY, "--trainer.max_epochs=1"]
    )
    result = peer.bench_peer(args)
    assert [row["seed"] for row in result["fit"]] == [3]
    assert all(row["seconds"] > 0 for row in result["fit"] + result["peers"])
    assert [row["said"] for row in result["peers"]] == [["2", "3"]]
    for row in result["fit"]:
        accuracies = [row["results"][tta]["test"]["metrics"]["test/acc"] for tta in ("none", "flip_translate")]
        assert all(0 < accuracy <= 1 for accuracy in accuracies)
        assert row["results"]["none"]["seed"] == row["seed"]
    assert "median of fit" in capsys.readouterr().out


@pytest.mark.slow
def test_start_measures_up_to_the_first_step(monkeypatch):
    for name in ("BARE", "IMPORTS"):  # as long as the imports of torch alone
        monkeypatch.setattr(start, name, [sys.executable, "-c", "import torch"])
    result = start.bench_start(Namespace(config=CONFIG, rounds=1, options=TINY))
    assert set(result["seconds"]) == {"import torch, lightning", "imports", "--help", "first step"}
    assert all(len(values) == 1 and values[0] > 0 for values in result["seconds"].values())
    assert result["median_ratios"]["import torch, lightning"] == 1


@pytest.mark.slow
def test_parallel_runs_the_same_trainings_in_turn_and_side_by_side(monkeypatch, capsys):
    """Side by side they overlap in time, one after the other they do not, and each has one thread."""
    original, spans = parallel.run, []

    def spy(command, environment):
        started = time.monotonic()
        original(command, environment)
        spans.append((started, time.monotonic(), environment["OMP_NUM_THREADS"]))

    monkeypatch.setattr(parallel, "run", spy)
    args = Namespace(config=CONFIG, options=[*TINY, "--trainer.max_epochs=1"], jobs=2, rounds=1)
    found = parallel.bench_parallel(args)
    assert len(spans) == 4
    first, second, third, fourth = sorted(spans)
    assert first[1] <= second[0]
    assert fourth[0] < third[1]
    assert {span[2] for span in spans} == {"1"}
    (turn,), (side,) = found["seconds"].values()
    assert found["ratios"] == [turn / side]
    assert "times sooner in each of 1 rounds" in capsys.readouterr().out


def test_scale_varies_one_axis_at_a_time(monkeypatch, capsys):
    monkeypatch.setattr(scale, "BASE", {"batch_size": 4, "width": 2, "depth": 1})
    monkeypatch.setattr(scale, "AXES", {"batch_size": [2, 4], "depth": [1, 2]})
    monkeypatch.setattr(scale, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads()
    rows = scale.bench_scale(Namespace(steps=2))["rows"]
    assert torch.get_num_threads() == threads
    assert all(len(row["images_per_second"]) == 2 for row in rows)
    assert [row["depth"] for row in rows if row["axis"] == "depth" and row["device"] == "cpu"] == [1, 2]
    precisions = [row["precision"] for row in rows if row["axis"] == "precision" and row["device"] == "cpu"]
    assert precisions == (["32-true", "bf16-mixed"] if has_bfloat16("cpu") else ["32-true"])


def bench(monkeypatch, *args: str) -> int:
    """Run scripts/bench.py and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["bench.py", *args])
    return command.main()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        *((["scale", f"--steps={wrong}"], f"`--steps`: expected a whole number of at least 1, got {wrong}")
          for wrong in ("0", "-1", "few", "1.5")),
        pytest.param(["train", CONFIG, "--trainer.max_epochs=many"],
                     "`--trainer.max_epochs` to be a whole number or null", marks=pytest.mark.slow),
        (["scale", "--trainer.max_epochs=2"], "There is no option `--trainer.max_epochs` in `bench.py scale`"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_measured_is_one_message(args, words, monkeypatch, capsys):
    assert bench(monkeypatch, *args) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("error: ")
    assert "Traceback" not in said


def test_the_result_is_written_as_json(monkeypatch):
    monkeypatch.setattr(scale, "AXES", {})
    monkeypatch.setattr(scale, "BASE", {"batch_size": 2, "width": 2, "depth": 1})
    monkeypatch.setattr(scale, "keep_freed_memory", lambda: True)
    assert bench(monkeypatch, "scale", "--steps=1", "--output=out/scale.json") == 0
    result = json.loads(Path("out/scale.json").read_text())
    assert result["benchmark"] == "scale"
    assert {"rows", "versions", "hardware"} <= result.keys()
