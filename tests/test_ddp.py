"""Two processes on the CPU: each sample once, and the metrics of one process."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from observe import LOOPBACK, descendants, listening, wait_until
from tiny import CNN, DATA, MLP, state_sha256

from cifar_lightning.__main__ import main

pytestmark = pytest.mark.timeout(900)  # processes of their own start slowly on a busy machine

ALONE = ("--trainer.strategy=auto", "--trainer.devices=1")
TWO = ("--trainer.strategy=ddp", "--trainer.devices=2", "--trainer.accelerator=cpu")


def command(*args: object) -> str:
    """Runs the program in processes of its own, as two of them start each other, and returns what it printed."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "cifar_lightning", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_share_every_sample_and_stop_at_the_same_epoch():
    # 599 images leave batches and shares uneven.
    images = ("--data.synthetic_train=699", "--trainer.callbacks=recording.RecordIndices", "--trainer.max_epochs=6")
    stop = ("--trainer.callbacks+=recording.RecordGroup", "--early_stopping.patience=1", "--early_stopping.min_delta=1")
    out = command("fit", *DATA, *CNN, *TWO, *images, *stop)
    (run,) = Path("lightning_logs").glob("*/*")
    for epoch in range(2):
        ranks = [torch.load(f"indices-{epoch}-{rank}.pt", weights_only=True) for rank in range(2)]
        assert sorted(torch.cat(ranks).tolist()) == list(range(599))
        assert abs(len(ranks[0]) - len(ranks[1])) <= 6  # at most one a step
    orders = [torch.load(f"indices-{epoch}-0.pt", weights_only=True) for epoch in range(2)]
    assert orders[0].tolist() != orders[1].tolist()
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["stopped_by"]) == ("early_stopped", "EarlyStopping by val/acc")
    assert (result["fit"]["devices"], result["fit"]["epochs"]) == (2, 2)
    assert len(re.findall("epoch 1/6", out)) == 1  # one process speaks
    # A thread of gloo that is left when Python ends may abort the process.
    assert [Path(f"group-{rank}.txt").read_text() for rank in range(2)] == ["False", "False"]


def test_two_processes_predict_every_image_once(finished):
    run = finished(*CNN)
    main(["predict", "--run", str(run)])
    alone = (run / "predictions/test.csv").read_text()
    command("predict", "--run", run, *TWO, "--data.eval_batch_size=33")
    together = (run / "predictions/test.csv").read_text()

    def columns(text: str) -> list[list[str]]:
        return [line.split(",")[:3] for line in text.splitlines()]

    assert columns(together) == columns(alone)
    assert len(columns(alone)) == 201


@pytest.mark.slow
def test_two_processes_train_as_one_does_on_the_same_batches():
    """Without batch statistics and dropout, the mean of two halves' gradients is the gradient of the whole."""
    net = ("--model", "MLPClassifier", "--model.net.widths", "[16]", "--model.net.norm=none", "--model.net.dropout=0")
    main(["fit", *DATA, *net, "--version=one", "--data.batch_size=100"])
    command("fit", *DATA, *net, "--version=two", "--data.batch_size=50", *TWO)
    states = [
        torch.load(f"lightning_logs/mlp/{version}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for version in ("one", "two")
    ]
    for name, weights in states[0].items():
        # Sums in another order differ in the last bits, which ten steps with momentum enlarge; gradients of one half
        # of the batch would differ by more than 0.01.
        torch.testing.assert_close(states[1][name], weights, rtol=0, atol=2e-4)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_processes_meet_where_no_other_machine_comes():
    words = ("-m", "cifar_lightning", "fit", *DATA, *CNN, *TWO, "--trainer.max_epochs=1000", "--version=two")
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until(lambda: Path("lightning_logs/cnn/two/checkpoints/last.ckpt").is_file() or process.poll() is not None)
        pids = [process.pid, *descendants(process.pid, "cifar_lightning")]
        addresses = [set(listening([pid])) for pid in pids]
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert len(addresses) == 2, said
    assert all(addresses), "each has at least a socket for the exchange of gradients"
    assert set.union(*addresses) <= LOOPBACK


def free_port() -> int:
    """Return a port of no other program, below those that the system may give to one before it is used."""
    for port in random.SystemRandom().sample(range(20000, 30000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@pytest.fixture
def of_two(once) -> Path:
    """The run of a training and a test by two processes."""
    words = ("fit", *DATA, *MLP, *TWO, "--name=ddp", "--version=two", "--test", "--data.eval_batch_size=33")
    return once("ddp", lambda folder: command(*words, "--save_dir", folder)) / "ddp/two"


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does_with_any_batch_size(of_two, tmp_path):
    run = Path(shutil.copytree(of_two, tmp_path / "ddp/copy"))
    seen = [json.loads((run / "result.json").read_text())["test"]]
    for batch_size in (1, 7, 500, 4096):
        assert main(["test", "--run", str(run), f"--data.eval_batch_size={batch_size}", *ALONE]) == 0
        seen.append(json.loads((run / "result.json").read_text())["test"])
    assert [entry["devices"] for entry in seen] == [2, 1, 1, 1, 1]
    for entry in seen[1:]:
        assert entry["confusion"] == seen[0]["confusion"]
        assert entry["metrics"] == pytest.approx(seen[0]["metrics"], rel=1e-5)


@pytest.mark.slow
def test_spawned_processes_train_and_test_as_those_of_a_script_do(of_two):
    spawned = ("--trainer.strategy=ddp_spawn", "--name=ddp", "--version=spawned", "--test")
    command("fit", *DATA, *MLP, *TWO, *spawned, "--data.eval_batch_size=33")
    ddp, spawn = (json.loads((run / "result.json").read_text()) for run in (of_two, Path("lightning_logs/ddp/spawned")))
    assert spawn["status"] == "completed"
    assert spawn["fit"]["devices"] == spawn["test"]["devices"] == 2
    assert sum(map(sum, spawn["test"]["confusion"])) == 200
    for stage in ("fit", "test"):
        rates = "train/images_per_second"
        assert {k: v for k, v in spawn[stage]["metrics"].items() if k != rates} == {
            k: v for k, v in ddp[stage]["metrics"].items() if k != rates
        }


@pytest.mark.slow
def test_two_torchrun_nodes_train_as_two_devices_of_one_node(of_two):
    rendezvous = ("--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={free_port()}")
    nodes = ("--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", *rendezvous, f"--node_rank={rank}"),
                *("-m", "cifar_lightning", "fit", *DATA, *MLP, *nodes, "--version=nodes"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=600)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    assert state_sha256(Path("lightning_logs/mlp/nodes")) == state_sha256(of_two)
    result = json.loads(Path("lightning_logs/mlp/nodes/result.json").read_text())
    assert result["fit"]["devices"] == 2
