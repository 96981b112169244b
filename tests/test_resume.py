"""Same seed, same numbers; stopped and continued, same numbers as never stopped."""

import json

import pytest
import torch
from tiny import CNN, MLP, fit, state_sha256

from cifar_lightning.__main__ import main

AUGMENTED = ("--data.flip=true", "--data.translate_px=2", "--data.cutout_px=8", "--trainer.max_epochs=3")
NETS = pytest.mark.parametrize("net", [MLP, CNN], ids=["mlp", "cnn"])


@NETS
def test_same_seed_gives_the_same_weights_and_another_seed_does_not(net):
    runs = [fit(*net, *AUGMENTED, f"--seed_everything={seed}") for seed in (3, 3, 4)]
    hashes = [state_sha256(run) for run in runs]
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


@NETS
@pytest.mark.parametrize("extra", [(), ("ema",)], ids=["plain", "ema"])
def test_stopped_after_an_epoch_and_resumed_equals_never_stopped(net, extra):
    args = [*net, *AUGMENTED]  # both nets drop out: 0.1 in the MLP, 0.2 in the CNN
    if extra:
        ema = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
        args += ["--trainer.callbacks", json.dumps([ema])]
    whole = fit(*args, "--version=whole")
    # The schedule is that of three epochs in both; the first part is cut off after one.
    part = fit(*args, "--version=part", "--trainer.callbacks+=stopping.StopAfter", "--trainer.callbacks.epochs=1")
    assert state_sha256(part) != state_sha256(whole)
    assert len((part / "metrics.csv").read_text().splitlines()) == 2

    resume = ["fit", "--run", str(part), "--ckpt_path", "last", "--trainer.callbacks"]
    assert main([*resume, json.dumps([ema]) if extra else "null"]) == 0
    assert state_sha256(part) == state_sha256(whole)
    assert state_sha256(part, "best") == state_sha256(whole, "best")

    def curves(run):
        rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
        keep = [i for i, name in enumerate(rows[0]) if "per_second" not in name]
        return [[row[i] for i in keep] for row in rows]

    assert curves(part) == curves(whole)
    results = [json.loads((run / "result.json").read_text())["fit"] for run in (part, whole)]
    assert results[0]["epochs"] == results[1]["epochs"] == 3
    assert results[0]["steps"] == results[1]["steps"]


def test_a_run_that_was_moved_and_goes_on_remembers_its_best(tmp_path):
    stop = ("--trainer.callbacks=stopping.StopAfter", "--trainer.callbacks.epochs=1")
    part = fit(*MLP, *AUGMENTED, "--version=part", *stop)
    moved = tmp_path / "elsewhere" / "mlp" / "part"
    moved.parent.mkdir(parents=True)
    part.rename(moved)
    # Updates too small to see: the first epoch stays the best, or as good as any.
    options = ["--trainer.callbacks=null", "--trainer.gradient_clip_val=1e-12"]
    assert main(["fit", "--run", str(moved), *options]) == 0
    header, *rows = (line.split(",") for line in (moved / "metrics.csv").read_text().splitlines())
    accuracies = [float(row[header.index("val/acc")]) for row in rows]
    assert len(accuracies) == 3
    best = json.loads((moved / "result.json").read_text())["fit"]["best"]
    assert best["score"] == pytest.approx(max(accuracies))
    checkpoint = torch.load(moved / "checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["epoch"] == accuracies.index(max(accuracies))


def test_resuming_a_checkpoint_in_a_new_run_equals_never_stopped():
    whole = fit(*CNN, *AUGMENTED, "--version=whole")
    part = fit(
        *CNN, *AUGMENTED, "--version=part", "--trainer.callbacks=stopping.StopAfter", "--trainer.callbacks.epochs=2"
    )
    more = fit(*CNN, *AUGMENTED, "--version=more", "--ckpt_path", part / "checkpoints/last.ckpt")
    assert state_sha256(more) == state_sha256(whole)
    assert len((more / "metrics.csv").read_text().splitlines()) == 4
