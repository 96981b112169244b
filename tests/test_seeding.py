from __future__ import annotations

import hashlib
import subprocess
import sys

import torch
from tiny import MLP, fit

from cifar_lightning.callbacks.steps import StepSeed
from cifar_lightning.seeding import derive_seed, generator


def test_a_seed_is_half_a_hash():
    digest = hashlib.sha256(b"('shuffle', 0, 7)").digest()
    assert derive_seed("shuffle", 0, 7) == int.from_bytes(digest[:8], "big") // 2
    # What runs of earlier versions drew must be drawn again when they are resumed.
    assert derive_seed("shuffle", 0, 7) == 5062683850840803032


def test_every_part_counts():
    parts = [
        (),
        (0,),
        (1,),
        ("0",),
        (0, 1),
        (1, 0),
        (0, 0),
        ("a", 0),
        ("b", 0),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (-1,),
    ]
    assert len({derive_seed(*part) for part in parts}) == len(parts)


def test_seeds_are_what_torch_takes():
    seeds = [derive_seed("x", i) for i in range(2000)]
    assert len(set(seeds)) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # the high bits are used
    torch.Generator().manual_seed(max(seeds))


def test_the_same_in_another_process():
    code = "from cifar_lightning.seeding import derive_seed; print(derive_seed('step', 3, 1))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == derive_seed("step", 3, 1)


def test_a_generator_is_its_own():
    before = torch.get_rng_state()
    draws = [torch.rand(5, generator=generator("x", seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_step_draws_what_torch_draws_from_its_seed(monkeypatch):
    seen = []

    class Spy(StepSeed):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            seen.append(torch.get_rng_state())

    monkeypatch.setattr("cifar_lightning.cli.training.StepSeed", Spy)
    fit(*MLP, "--trainer.max_epochs=2", "--seed_everything=3")
    assert len(seen) == 10
    for step, state in enumerate(seen):
        torch.manual_seed(derive_seed("step", 3, step, 0))
        assert torch.equal(state, torch.get_rng_state())
