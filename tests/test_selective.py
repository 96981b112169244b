"""A network that is trained on the hardest images, which a small one finds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from test_ddp import TWO, command
from tiny import DATA, fit, state_sha256
from torch import nn

from cifar_lightning.__main__ import main
from cifar_lightning.callbacks.finite import FiniteCheck, NotFiniteError
from cifar_lightning.data.loader import Batch
from cifar_lightning.models import MLP, ImageClassifier, SelectiveClassifier

NETS = (
    *("--model", "SelectiveClassifier", "--model.net", "cifar_lightning.models.MLP", "--model.net.widths", "[32]"),
    *("--model.proxy", "cifar_lightning.models.MLP", "--model.proxy.widths", "[4]"),
)


def batch(n: int = 40) -> Batch:
    return Batch(torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8), torch.arange(n) % 10, torch.arange(n))


def gradients(model: ImageClassifier, some: Batch) -> list[torch.Tensor]:
    model.zero_grad()
    model.training_step(some, 0).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_both_networks_learn_from_the_images_that_are_hardest_for_the_small_one(share):
    net, proxy, images = MLP([8], norm="none", dropout=0.0), MLP([4], norm="none", dropout=0.0), batch()
    model = SelectiveClassifier(net, proxy, share, label_smoothing=0.2)
    losses = F.cross_entropy(
        proxy(model.normalize(images.images)), images.labels, reduction="none", label_smoothing=0.2
    )
    hardest = losses.argsort(descending=True)[: round(share * 40)]
    selected = Batch(*(part[hardest] for part in images))
    expected = [
        gradient
        for network in (net, proxy)
        for gradient in gradients(ImageClassifier(network, label_smoothing=0.2), selected)
    ]
    torch.testing.assert_close(gradients(model, images), expected)


def test_a_batch_of_one_image_is_not_left_out():
    assert SelectiveClassifier(MLP([8], norm="none"), MLP([4]), 0.1).training_step(batch(2), 0).isfinite()


def test_the_optimizer_trains_both_networks(make_trainer, data):
    model = SelectiveClassifier(MLP([8]), MLP([4]))
    before = {name: value.clone() for name, value in model.named_parameters()}
    make_trainer(max_epochs=1).fit(model, data)
    assert not [name for name, value in model.named_parameters() if torch.equal(value, before[name])]


def test_the_flops_are_those_of_both_networks_counted_by_hand():
    result = json.loads((fit(*NETS, "--model.share=0.25") / "result.json").read_text())
    net, proxy = 3072 * 32 + 32 * 10, 3072 * 4 + 4 * 10
    assert result["fit"]["training_flops"] == 6 * 2 * (125 * net + 500 * proxy)
    assert result["params"] == sum(p.numel() for p in MLP([32]).parameters())  # of the network that is evaluated
    assert result["flops_per_image"] == 2 * net


def test_a_run_in_two_parts_gives_the_weights_of_the_whole():
    whole = fit(*NETS)
    asked_to_end = (f"--trainer.callbacks.{option}" for option in ("number=15", "after=7"))
    words = ["fit", *DATA, *NETS, "--version=part", "--trainer.callbacks=stopping.Signal", *asked_to_end]
    assert main(words) == 143
    part = whole.parent / "part"
    assert main(["fit", "--run", str(part)]) == 0
    assert state_sha256(part) == state_sha256(whole)


def test_a_run_is_tested_shown_and_exported():
    run = fit(*NETS)
    for what in ("test", "report", "export"):
        assert main([what, "--run", str(run)]) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_it():
    command("fit", *DATA, *NETS, "--data.batch_size=50", *TWO)
    entry = json.loads(Path("lightning_logs/selective/version_0/result.json").read_text())
    assert entry["status"] == "completed"


class BreakProxy(Callback):
    """Makes the small network return infinity in the first step alone."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.proxy.head.bias.data[0] = math.inf if batch_idx == 0 else 0.0


def test_a_step_that_spoils_the_small_network_is_skipped(make_trainer, data):
    model = SelectiveClassifier(MLP([8]), MLP([4]))
    finite = FiniteCheck(every_n_steps=1, skip_steps=1)
    make_trainer(max_epochs=1, callbacks=[finite, BreakProxy()]).fit(model, data)
    assert finite.skipped_steps == 1
    assert all(value.isfinite().all() for value in model.proxy.state_dict().values())

    with pytest.raises(NotFiniteError, match=r"NaN in the loss, with such weights in head.bias, at step 1"):
        make_trainer(max_epochs=1, callbacks=[FiniteCheck(every_n_steps=1), BreakProxy()]).fit(model, data)


def test_what_it_refuses():
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"Expected `model.share` in \(0, 1\], got {share}"):
            SelectiveClassifier(MLP([8]), MLP([4]), share)
    model = SelectiveClassifier(MLP([8]), nn.Sequential(nn.Flatten(), nn.Linear(3072, 7)))
    with pytest.raises(ValueError, match=r"Expected `model.proxy` to return finite logits \(2, 10\), got \(2, 7\)"):
        model.check_net()
