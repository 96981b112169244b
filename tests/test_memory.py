"""Memory that is freed and taken again costs no page faults."""

import subprocess
import sys

import pytest
from tiny import CNN, fit

from cifar_lightning.callbacks import memory

FAULTS = """
import resource, torch
from cifar_lightning.callbacks.memory import keep_freed_memory

def faults():
    for _ in range(10):
        torch.ones(20_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(20_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults()
assert keep_freed_memory()
print(plain, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_kept_memory_is_taken_again_without_page_faults():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    plain, kept = map(int, done.stdout.split())
    assert kept < 100
    assert plain > 10 * max(kept, 1)


HANDED_BACK = """
import torch
from pathlib import Path
from cifar_lightning.callbacks.memory import keep_freed_memory, release_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

assert keep_freed_memory()
tensors = [torch.ones(5_000_000) for _ in range(10)]
last = torch.ones(1000)  # above them, so that the heap cannot simply shrink
before = resident()
del tensors
kept = resident()
release_freed_memory()
print(before - kept, kept - resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_kept_memory_goes_back_when_told():
    done = subprocess.run([sys.executable, "-c", HANDED_BACK], capture_output=True, text=True, check=True)
    at_once, when_told = (int(number) for number in done.stdout.split())
    assert at_once < 10e6
    assert when_told > 150e6


@pytest.mark.parametrize(("sizes", "released"), [("[]", 1), ("[16, 16, 32]", 3)])
def test_memory_goes_back_when_the_images_change_their_size(monkeypatch, sizes, released):
    calls = []
    monkeypatch.setattr(memory, "release_freed_memory", lambda: calls.append(1))
    fit(*CNN, "--trainer.max_epochs=3", f"--data.image_sizes={sizes}")
    assert len(calls) == released  # at the start, and before each epoch of another size
